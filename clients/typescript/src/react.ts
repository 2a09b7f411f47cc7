// A session in a React component.
import { useCallback, useMemo, useSyncExternalStore } from "react";
import type { Client } from "./client.js";
import { CLOSED, LiveSession, type SessionState } from "./live.js";

export type UseSession = SessionState & Pick<LiveSession, "send" | "approve" | "answer" | "stop">;

const nothing = () => CLOSED;

/**
 * A session as it is now, and what can be done there; follows it while the component is there.
 *
 * Make the `client` once, outside of components.  Without a session (`null`) it is empty.  On a
 * server it renders the empty state, and follows nothing.
 */
export function useSession(client: Client, session: string | null | undefined): UseSession {
  const live = useMemo(() => new LiveSession(client, session), [client, session]);
  const state = useSyncExternalStore(live.subscribe, live.getSnapshot, nothing);
  const send = useCallback<LiveSession["send"]>((...given) => live.send(...given), [live]);
  const approve = useCallback<LiveSession["approve"]>((...given) => live.approve(...given), [live]);
  const answer = useCallback<LiveSession["answer"]>((...given) => live.answer(...given), [live]);
  const stop = useCallback<LiveSession["stop"]>((...given) => live.stop(...given), [live]);
  return { ...state, send, approve, answer, stop };
}
