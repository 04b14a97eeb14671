#!/bin/sh
# An access token for your own system with nothing but openssl and curl (RFC 7523, private_key_jwt).
# usage: token.sh NODE_URL NETWORK/MEMBER CLIENT ACTOR KEY.pem [PURPOSE]: what content is read for, as the ledger says
set -eu
url=$1 member=$2 client=$3 actor=$4 key=$5 purpose=${6:-TRACING}

b64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }

now=$(date +%s)
head=$(printf '{"alg":"EdDSA","typ":"JWT"}' | b64url)
claims=$(printf '{"iss":"%s","sub":"%s","actor":"%s","purpose_of_use":"%s","aud":"%s/v1/token","iat":%d,"exp":%d,"jti":"%s"}' \
  "$client" "$client" "$actor" "$purpose" "$member" "$now" "$((now + 60))" "$(openssl rand -hex 16)" | b64url)
work=$(mktemp)
trap 'rm -f "$work"' EXIT
printf '%s.%s' "$head" "$claims" > "$work" # openssl signs Ed25519 from a file only
assertion=$(cat "$work").$(openssl pkeyutl -sign -rawin -inkey "$key" -in "$work" | b64url)

answer=$(curl -sS --fail-with-body "$url/v1/token" \
  -d grant_type=client_credentials \
  -d client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer \
  -d client_assertion="$assertion") || { echo "$answer" >&2; exit 1; }
echo "$answer" | sed 's/.*"access_token":"\([^"]*\)".*/\1/'
