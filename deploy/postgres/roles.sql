-- The database of a node and its two roles, once, by PostgreSQL's administrator (psql, PostgreSQL 15 or newer).
-- The owner migrates (`tracewire init` and `tracewire migrate`); the application may connect, and the migrations grant it
-- tables: neither it nor whoever takes over the node can change or delete an entry or a checkpoint.
-- psql --set=name=NAME names another database than tracewire; its roles are NAME_owner and NAME_app.
-- The two passwords come from files, so that none stands in a command line, a log or a history.
\set ON_ERROR_STOP on
\if :{?name} \else \set name tracewire \endif
\set owner :name _owner
\set app :name _app
\set owner_password `cat "${TRACEWIRE_OWNER_PASSWORD_FILE:?}"`
\set app_password `cat "${TRACEWIRE_APP_PASSWORD_FILE:?}"`
SELECT least(length(:'owner_password'), length(:'app_password')) < 16 AS weak \gset
\if :weak
  DO $$ BEGIN RAISE EXCEPTION 'each of the two password files must hold 16 characters or more'; END $$;
\endif
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;
CREATE ROLE :"owner" LOGIN PASSWORD :'owner_password';
CREATE ROLE :"app" LOGIN PASSWORD :'app_password';
CREATE DATABASE :"name" OWNER :"owner" ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"name" TO :"app";
