#!/bin/sh
# Make the role that owns Hostler's database.  It is no superuser, so row-level security holds for it.
set -eu
psql --username postgres --set ON_ERROR_STOP=1 --set password="$HOSTLER_DB_PASSWORD" <<'SQL'
CREATE ROLE hostler LOGIN PASSWORD :'password';
CREATE DATABASE hostler OWNER hostler;
SQL
