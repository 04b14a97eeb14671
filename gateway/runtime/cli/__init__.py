"""The command `tracewire`: operator commands open the store, user commands are HTTP clients of `/v1`."""
