"""What stands in `deploy/` names what there is, and what can be run or checked here is."""

from __future__ import annotations

import plistlib
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import click
import pytest
import yaml
from docs.build.http import document
from msgspec import to_builtins
from tests.observed import observed
from tests.programs import cutter, free_port, needed, nginx_with
from tests.serving import KEY, Client, serving
from tests.viewers import MID_MESSAGE, TRANSPORTS, Speaker, Viewer, say

from hostler.app import wiring
from hostler.app.agent import load_target
from hostler.app.cli import hostler
from hostler.app.settings import PREFIX, Settings, load_settings
from hostler.testing.doubles import an_agent

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CLUSTER = DEPLOY / "kubernetes"
OF_COMPOSE = {"HOSTLER_DB_PASSWORD", "HOSTLER_AGENTS"}
"""Variables of the compose file itself, which no node is given."""
FILES = [
    one
    for one in sorted(DEPLOY.rglob("*"))
    if one.is_file() and one.parent.name not in ("grafana", "prometheus")
]
WORDS = ["one ", "two ", "three ", "four ", "five ", "six "]
EXPOSED = 2.0
"""Of 10, by `systemd-analyze security`: below, a unit is called OK."""


def read(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def compose() -> Any:
    return yaml.safe_load(read("compose.yaml"))


def manifests() -> list[Any]:
    """Return all objects, the example's too."""
    files = [one for one in CLUSTER.iterdir() if one.name != "kustomization.yaml"]
    return [made for one in files for made in yaml.safe_load_all(one.read_text(encoding="utf-8"))]


def of_kind(kind: str) -> Any:
    (found,) = [one for one in manifests() if one["kind"] == kind]
    return found


def unit() -> dict[str, list[str]]:
    """Return the directives of the systemd unit."""
    found = dict[str, list[str]]()
    for line in read("systemd/hostler.service").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


# -- only what there is ----------------------------------------------------------------------


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield each command line of Hostler's, and where it stands."""
    (cmd,) = re.findall(r'^CMD (\["serve".*\])$', read("Dockerfile"), re.MULTILINE)
    yield "Dockerfile", yaml.safe_load(cmd)
    for name, service in compose()["services"].items():
        if service["image"] == "hostler":
            yield f"compose {name}", service["command"]
    for made in manifests():
        if made["kind"] in ("Deployment", "Job"):
            (container,) = made["spec"]["template"]["spec"]["containers"]
            yield made["kind"], container["args"]
    (start,) = unit()["ExecStart"]
    yield "systemd", shlex.split(start)[1:]
    yield (
        "launchd",
        plistlib.loads(read("launchd/dev.hostler.plist").encode())["ProgramArguments"][1:],
    )


@pytest.mark.parametrize("line", [pytest.param(line, id=where) for where, line in commands()])
def test_each_command_and_flag_is_one_of_ours(line: list[str]) -> None:
    found = cast("click.Command", wiring.command(line[0]))

    # A command keeps the names of its help from the first time that it is asked.
    above = click.Context(hostler, help_option_names=["-h", "--help"])
    found.make_context(line[0], list(line[1:]), parent=above)  # raises what a user would be told


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(DEPLOY)))
def test_each_variable_is_a_setting(file: Path) -> None:
    named = set(re.findall(r"\bHOSTLER_[A-Z_]+", file.read_text(encoding="utf-8")))

    known = {PREFIX + name.upper() for name in Settings.model_fields}
    assert named - known <= (OF_COMPOSE if file.parent.name in ("deploy", "compose") else set())


def test_no_node_is_given_a_variable_that_sets_nothing() -> None:
    services = compose()["services"]
    nodes = [one for one in services.values() if one["image"] == "hostler"]
    given = {name for one in nodes for name in one["environment"]}

    assert len(nodes) == 4
    assert given & OF_COMPOSE == set()


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_a_node_starts_with_the_settings_that_it_is_given(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = dict(re.findall(r"(HOSTLER_\w+)=(\S+)", read("Dockerfile")))
    filled = {"HOSTLER_ADMIN_KEY": "k" * 32, "HOSTLER_MASTER_KEY": "0" * 64}
    given = compose()["services"]["node1"]["environment"]
    if where == "kubernetes":
        settings, _ = sorted(
            (one for one in manifests() if one["kind"] == "ConfigMap"),
            key=lambda one: one["metadata"]["name"],
        )
        given = {**of_kind("Secret")["stringData"], **settings["data"]}
    for name, value in {**image, **given, **filled}.items():
        if value is not None:
            plain = re.sub(r"\$\{(\w+):-([^}]*)\}", r"\2", str(value))
            monkeypatch.setenv(name, re.sub(r"\$\{\w+:\?[^}]*\}", "filled", plain))

    settings = load_settings({})

    assert (settings.host, settings.insecure) == ("0.0.0.0", True)
    assert isinstance(settings.place, str)
    assert settings.redis is not None
    assert settings.named_hosts


# -- the image, and what is made of it ---------------------------------------------------------


def test_the_image_is_of_two_stages_without_root_and_says_how_it_is() -> None:
    text = read("Dockerfile")
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    (probe,) = re.findall(r"HEALTHCHECK .*\\\n\s+CMD (\[.*\])", text)
    asked = yaml.safe_load(probe)

    assert len(bases) == 2
    assert all(re.fullmatch(r"python:\d\.\d+-slim-\w+", one) for one in bases)
    assert re.search(r"^USER (\d+):\d+$", text, re.MULTILINE)
    assert text.rindex("USER ") > text.rindex("RUN ")
    kept = {one[1:] for one in read("Dockerfile.dockerignore").splitlines() if one[:1] == "!"}
    wanted = {name for line in copied for name in line.split()}
    assert wanted == kept
    assert all((ROOT / name).exists() for name in wanted)
    compile(asked[2], "probe", "exec")
    assert "127.0.0.1:8420/healthz" in asked[2]


def test_the_image_takes_the_tools_and_extras_of_the_project() -> None:
    text, project = read("Dockerfile"), (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (uv,) = re.findall(r"uv==([\d.]+)", text)
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", text)

    assert f"UV_VERSION := {uv}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{one} = \[", project, re.MULTILINE) for one in extras.split(","))


def test_the_nodes_of_the_compose_file_are_alike_and_what_they_need_is_there() -> None:
    made = compose()
    services = made["services"]
    nodes = [services[f"node{number}"] for number in (1, 2, 3)]
    mounted = [one.split(":")[0] for each in services.values() for one in each.get("volumes", [])]
    paths = [one for one in mounted if one.startswith((".", "$"))]

    assert nodes[0] == nodes[1] == nodes[2]
    for path in paths:
        assert (
            DEPLOY / re.sub(r"^\$\{\w+:-(.*)\}?$", r"\1", path).rstrip("}")
        ).exists() or "{" in path
    assert (DEPLOY / "../examples/agents").is_dir()
    assert set(mounted) - set(paths) == set(made["volumes"])
    for one in services.values():
        assert set(one.get("depends_on", [])) <= set(services)
        assert ":" in one["image"] or one["image"] == "hostler"
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", []))
    for waited, how in nodes[0]["depends_on"].items():
        assert how["condition"] != "service_healthy" or "healthcheck" in services[waited]
    assert load_target(str(DEPLOY / "../examples/agents"))


def test_secrets_of_the_compose_file_have_no_default() -> None:
    named = re.findall(r"\$\{(\w*(?:PASSWORD|KEY)\w*)(:.)?", read("compose.yaml"))

    assert {name for name, _ in named} >= {"HOSTLER_ADMIN_KEY", "HOSTLER_MASTER_KEY"}
    assert all(how == ":?" for _, how in named)
    script = read("compose/postgres-role.sh")
    assert "SUPERUSER" not in script
    assert "CREATE ROLE hostler LOGIN" in script


# -- Kubernetes --------------------------------------------------------------------------------


def pods() -> Iterator[Mapping[str, Any]]:
    for kind in ("Deployment", "Job"):
        yield of_kind(kind)["spec"]["template"]["spec"]


def test_all_manifests_are_applied_but_the_example() -> None:
    listed = yaml.safe_load((CLUSTER / "kustomization.yaml").read_text(encoding="utf-8"))
    there = {one.name for one in CLUSTER.glob("*.yaml")}

    assert set(listed["resources"]) == there - {"kustomization.yaml", "secret.example.yaml"}
    assert [one["name"] for one in listed["images"]] == ["hostler"]
    kinds = {one["kind"] for one in manifests()}
    assert kinds >= {
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "Job",
        "HorizontalPodAutoscaler",
    }


def test_what_selects_nodes_selects_them_and_no_job() -> None:
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]

    assert of_kind("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert of_kind("Service")["spec"]["selector"] == labels
    assert of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert of_kind("Job")["spec"]["template"]["metadata"]["labels"] != labels
    assert of_kind("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "hostler"


def test_pods_may_do_nothing_that_they_need_not() -> None:
    for pod in pods():
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert f"USER {pod['securityContext']['runAsUser']}:" in read("Dockerfile")
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        # A service named hostler would have HOSTLER_PORT set to `tcp://…`.
        assert pod["enableServiceLinks"] is False


def test_probes_ask_what_needs_no_key_and_names_lead_somewhere() -> None:
    paths = to_builtins(document()["paths"])
    pod, _ = pods()
    (container,) = pod["containers"]
    made = {(one["kind"], one["metadata"]["name"]) for one in manifests()}

    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        path = container[probe]["httpGet"]["path"]
        assert paths[path]["get"]["security"] == []
        assert container[probe]["httpGet"]["port"] == container["ports"][0]["name"]
    mounts = {one["name"] for one in container["volumeMounts"]}
    assert mounts == {one["name"] for one in pod["volumes"]}
    for one in container["envFrom"]:
        ((ref, named),) = one.items()
        assert (
            ref.removesuffix("Ref")[0].upper() + ref.removesuffix("Ref")[1:],
            named["name"],
        ) in made
    agents = next(one for one in manifests() if one["metadata"]["name"] == "hostler-agents")
    assert agents["kind"] == "ConfigMap"


def test_the_agents_of_the_manifests_are_read(tmp_path: Path) -> None:
    made = next(one for one in manifests() if one["metadata"]["name"] == "hostler-agents")
    for name, text in made["data"].items():
        (tmp_path / name).write_text(text, encoding="utf-8")

    assert [one.name for one in load_target(str(tmp_path))] == ["assistant"]


async def test_the_autoscaler_asks_for_a_figure_that_a_server_has(tmp_path: Path) -> None:
    metrics = of_kind("HorizontalPodAutoscaler")["spec"]["metrics"]
    (named,) = [one["pods"]["metric"]["name"] for one in metrics if one["type"] == "Pods"]

    async with observed(an_agent(Speaker([])), file=tmp_path / "log.db") as made:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with made.client.http.get(f"{made.client.url}/metrics", headers=headers) as answer:
            text = await answer.text()

    assert re.search(rf"^{named} ", text, re.MULTILINE)


# -- services ----------------------------------------------------------------------------------


def test_the_unit_is_one_that_systemd_takes_and_calls_locked_down(tmp_path: Path) -> None:
    there = re.sub(r"(?m)^(ExecStart=)\S+", r"\1/bin/true", read("systemd/hostler.service"))
    file = tmp_path / "hostler.service"
    file.write_text(there, encoding="utf-8")

    def analyzed(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [needed("systemd-analyze"), *arguments, str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    verified = analyzed("verify", "--man=no")
    secured = analyzed("security", "--offline=true", "--no-pager")

    assert (verified.returncode, verified.stderr) == (0, "")
    (exposure,) = re.findall(r"exposure level for \S+: ([\d.]+)", secured.stdout)
    assert float(exposure) < EXPOSED


def test_the_plist_is_one_and_keeps_the_server_up() -> None:
    made = plistlib.loads(read("launchd/dev.hostler.plist").encode())

    assert made["Label"] == "dev.hostler"
    assert (made["RunAtLoad"], made["KeepAlive"]) == (True, {"SuccessfulExit": False})
    assert made["Umask"] == 0o077
    assert set(made) <= OF_LAUNCHD


OF_LAUNCHD = {
    *("Label", "ProgramArguments", "RunAtLoad", "KeepAlive", "ExitTimeOut", "ProcessType"),
    *("Umask", "SoftResourceLimits", "StandardErrorPath"),
}
"""Keys of launchd.plist(5) that are used."""


# -- balancers ---------------------------------------------------------------------------------


def of_nodes(text: str, urls: list[str]) -> str:
    """Return a configuration with these nodes in place of its own."""
    for number, url in enumerate(urls, start=1):
        text = text.replace(f"node{number}:8420", url.removeprefix("http://"))
    return text


@asynccontextmanager
async def by_nginx(folder: Path, urls: list[str]) -> AsyncGenerator[str]:
    port = free_port()
    text = re.sub(r"\n\s*server node3:8420[^\n]*", "", of_nodes(read("nginx/nginx.conf"), urls))
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};")
    text = text.replace("/dev/stdout", str(folder / "access.log"))
    async with nginx_with(folder, text):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def by_caddy(folder: Path, urls: list[str]) -> AsyncGenerator[str]:
    port = free_port()
    text = of_nodes(read("caddy/Caddyfile"), urls).replace(" node3:8420", "")
    text = text.replace("{$HOSTLER_HOSTS} {", f"http://localhost:{port} {{", 1)
    text = text.replace("{$HOSTLER_HOSTS}", "localhost")
    file = folder / "Caddyfile"
    file.write_text(f"{{\n\tadmin off\n}}\n{text}", encoding="utf-8")
    command = [
        str(Path(sys.executable).with_name("caddy")),
        "run",
        "--config",
        str(file),
        "--adapter",
        "caddyfile",
    ]
    env = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    async with await anyio.open_process(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        try:
            with anyio.fail_after(20):
                while True:
                    try:
                        stream = await anyio.connect_tcp("127.0.0.1", port)
                    except OSError:
                        await anyio.lowlevel.checkpoint()
                    else:
                        await stream.aclose()
                        break
            yield f"http://localhost:{port}"
        finally:
            running.kill()


BALANCERS = {"nginx": by_nginx, "caddy": by_caddy}


@pytest.mark.timeout(90)
@pytest.mark.parametrize("name", BALANCERS)
async def test_a_balancer_passes_streams_and_sockets_on_as_they_come_by_both_nodes(
    name: str, tmp_path: Path
) -> None:
    model = Speaker(WORDS)
    viewers = {one: Viewer([TRANSPORTS[one]], [5, 2]) for one in MID_MESSAGE}
    async with (
        serving(an_agent(model), file=tmp_path / "log.db", hosts=["localhost"]) as client,
        cutter(client.url, []) as first,
        cutter(client.url, []) as second,
        BALANCERS[name](tmp_path, [first.url, second.url]) as url,
    ):
        balanced, said = Client(client.http, url), ""
        session = await balanced.session()
        with anyio.fail_after(45):
            async with anyio.create_task_group() as tasks:
                for viewer in viewers.values():
                    tasks.start_soon(viewer.watch, balanced, session)
                await say(balanced, session)
                for word in WORDS:
                    model.let()
                    said += word
                    for viewer in viewers.values():
                        await viewer.comes_to(lambda v, text=said: v.text == text)
                model.let()
        async with client.http.get(f"{url}/metrics") as answer:
            status = answer.status

    assert len({str(viewer.facts) for viewer in viewers.values()}) == 1
    assert first.connections > 1
    assert second.connections > 1
    assert status == 404


@pytest.mark.timeout(90)
@pytest.mark.parametrize("name", BALANCERS)
async def test_a_node_that_is_gone_is_passed_over(name: str, tmp_path: Path) -> None:
    async with (
        serving(an_agent(Speaker([])), file=tmp_path / "log.db", hosts=["localhost"]) as client,
        cutter(client.url, []) as there,
        BALANCERS[name](tmp_path, [there.url, f"http://127.0.0.1:{free_port()}"]) as url,
    ):
        balanced = Client(client.http, url)
        told = [(await balanced.call("GET", "/api/sessions"))[0] for _ in range(6)]

    assert told == [200] * 6
