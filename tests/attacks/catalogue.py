"""Every attack of the project's list with the test that asserts its answer, or with the issue that it waits for.

The groups are those of shared/attacks.yaml: T transport, H http, S httpsig, J envelope, R replay, D directory, C receipt,
L ledger, Z authz, W ssrf, F filedrop, V csv, X xml, M dos, G logs, U ui, P ops, Q quantum.
"""

_ENVELOPE = "tests/attacks/test_envelope.py::test_what_can_never_be_a_message_of_its_sender_is_refused_by_its_cause"
_DIRECTORY = "tests/attacks/test_directory.py::"
_RECEIPT = "tests/attacks/test_receipt.py::"
_REPLAY = "tests/attacks/test_replay.py::"
_QUANTUM = "tests/attacks/test_quantum.py::"
_RECEIVE = "tests/services/test_receive.py::"
_TLS, _FRAMING = "tests/http/test_tls.py::", "tests/http/test_framing.py::"
_SIGNATURES, _AGENCY = "tests/http/test_signatures.py::", "tests/http/test_agency.py::"
_AMBIGUOUS = f"{_FRAMING}test_ambiguous_framing_is_refused_and_the_connection_closed"
_REFUSED = f"{_FRAMING}test_what_no_client_of_ours_sends_is_refused_by_its_code"
_PEER = f"{_SIGNATURES}test_a_request_of_a_peer_is_refused_by_its_code"
_CONSOLE = "tests/http/test_console.py::"
_DOS = "tests/attacks/test_dos.py::"
_LEDGER, _WITNESS = "tests/attacks/test_ledger.py::", "tests/services/test_witness.py::"

CATALOGUE: dict[str, str] = {
    # transport
    "T01": _TLS + "test_t01_a_handshake_below_tls_1_3_is_refused",
    "T06": _TLS + "test_t06_another_members_server_is_not_told_a_byte",
    "T07": _RECEIVE + "test_only_a_hub_of_the_sender_may_carry_its_parcel",
    "T08": _SIGNATURES + "test_t08_the_connection_of_a_suspended_member_is_closed",
    "T09": _FRAMING + "test_t09_headers_that_come_too_slowly_are_given_up",
    "T10": _FRAMING + "test_t10_a_body_that_comes_too_slowly_is_given_up",
    "T12": _FRAMING + "test_t12_an_address_has_so_many_connections_and_no_more_and_another_is_served",
    "T14": _TLS + "test_t14_a_handshake_that_never_ends_is_given_up_and_hinders_nobody",
    "T15": _QUANTUM + "test_half_of_the_recipients_key_opens_nothing",
    # http
    "H01": f"{_AMBIGUOUS}[H01 Content-Length then Transfer-Encoding]",
    "H02": f"{_AMBIGUOUS}[H02 two lengths that differ]",
    "H03": f"{_AMBIGUOUS}[H03 xchunked]",
    "H05": _FRAMING + "test_a_malformed_header_is_refused[H05 obs-fold]",
    "H06": f"{_REFUSED}[H06 a header of 20,000 bytes]",
    "H07": f"{_REFUSED}[H07 1000 headers]",
    "H08": f"{_REFUSED}[H08 TRACE]",
    "H09": f"{_PEER}[H09 JSON in place of NDJSON]",
    "H10": f"{_REFUSED}[H10 gzip, before a body byte]",
    "H11": _SIGNATURES + "test_h11_a_body_over_the_limit_is_refused_before_it_is_read",
    "H12": f"{_REFUSED}[H12 chunks that grow]",
    "H13": f"{_PEER}[H13 the Host of another]",
    "H16": f"{_REFUSED}[H16 too long with Expect]",
    "H17": f"{_REFUSED}[H17 HTTP/0.9]",
    "H18": f"{_PEER}[H18 an upgrade]",
    "H20": _FRAMING + "test_h20_forwarding_headers_change_nothing",
    # httpsig
    "S01": f"{_PEER}[S01 no signature]",
    "S02": f"{_PEER}[S02 only @method covered]",
    "S03": f"{_PEER}[S03 the body changed, its digest kept]",
    "S04": f"{_PEER}[S04 md5]",
    "S05": f"{_PEER}[S05 created 301 s ago]",
    "S08": f"{_PEER}[S08 an unknown key]",
    "S10": _RECEIVE + "test_a_checkpoint_without_both_good_signatures_refuses_the_post",
    "S11": f"{_PEER}[S11 the tag of another application]",
    "S14": "tests/protocols/test_note.py::test_a_checkpoint_with_one_fault_is_refused[an ML-DSA line one byte longer]",
    "S15": f"{_PEER}[S15 a query]",
    # envelope
    **{
        f"J{number:02}": f"{_ENVELOPE}[J{number:02}]"
        for number in (1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 13, 14, 16, 17, 19, 20, 21, 23, 27, 28, 30, 32, 34, 35, 37, 39, 42, 43, 49)
    },
    "J25": _RECEIVE + "test_a_parcel_without_a_proof_or_under_a_broken_one_is_refused_and_nothing_is_stored",
    "J26": "tests/attacks/test_envelope.py::test_signature_lines_in_any_order_and_of_strangers_are_taken_and_never_twice",
    "J31": "tests/attacks/test_envelope.py::test_no_key_is_derived_and_nothing_opened_for_an_algorithm_that_we_do_not_have",
    "J38": _DIRECTORY + "test_a_key_to_which_nothing_may_be_sealed_never_comes_into_force",
    "J44": "tests/adapters/test_directory.py::test_another_members_public_keys_cannot_be_claimed",
    "J45": _DIRECTORY + "test_a_key_has_one_use",
    "J46": "tests/attacks/test_envelope.py::test_a_signing_key_counts_by_its_dates_and_by_the_ledger_position_of_its_revocation",
    "J47": "tests/attacks/test_envelope.py::test_what_fails_inside_an_envelope_cannot_be_told_apart",
    # replay
    "R01": _RECEIVE + "test_the_same_parcel_gets_the_same_receipt_after_a_restart_and_after_its_expiry",
    "R02": _RECEIVE + "test_another_content_under_the_same_id_is_a_conflict_with_proof_once_per_content",
    "R03": _REPLAY + "test_an_expired_message_is_refused_unless_it_was_receipted_in_time",
    "R04": _RECEIVE + "test_what_may_heal_is_a_problem_line_without_an_entry_and_heals",
    "R06": _REPLAY + "test_an_envelope_for_another_member_is_no_message_for_us",
    "R07": _REPLAY + "test_a_message_of_another_network_is_none_of_ours",
    "R10": "tests/services/test_courier.py::test_a_bag_may_come_twice_late_and_beside_the_network",
    "R11": _REPLAY + "test_a_clock_set_back_makes_nothing_valid_again_and_is_said_by_readyz",
    # directory
    "D01": "tests/adapters/test_directory.py::test_bytes_that_nobody_signed_are_refused_and_the_old_version_stays",
    "D02": "tests/adapters/test_directory.py::test_an_older_version_is_a_rollback",
    "D03": _DIRECTORY + "test_a_frozen_directory_is_loud_then_holds_what_is_submitted_and_drops_nothing",
    "D04": "tests/adapters/test_directory.py::test_old_targets_under_a_new_snapshot_are_a_mixture",
    "D06": _DIRECTORY + "test_endless_data_is_cut_off_and_refused_by_its_size",
    "D07": _DIRECTORY + "test_one_signer_counts_once",
    "D08": _DIRECTORY + "test_a_root_that_skips_a_version_or_that_the_old_one_did_not_sign_is_not_followed",
    "D10": _DIRECTORY + "test_a_record_below_the_policy_floor_never_comes_into_force",
    "D12": _DIRECTORY + "test_a_member_has_one_spelling",
    "D14": _DIRECTORY + "test_a_publisher_changes_nothing_of_a_member",
    "D15": _DIRECTORY + "test_a_directory_cannot_lower_the_policy_of_a_node",
    # receipt
    **{f"C{number:02}": _RECEIPT + f"test_a_receipt_that_proves_something_else_settles_nothing[C{number:02}]" for number in (1, 2, 3, 5)},
    "C06": "tests/services/test_deliver.py::test_after_the_expiry_one_last_post_asks_then_it_is_undelivered",
    "C07": "tests/fault/test_crash_points.py::test_after_a_crash_everything_is_there_once_and_proven",
    # csv
    "V02": "tests/services/test_records.py::test_v02_v03_a_file_that_cannot_be_read_is_refused_with_its_line_and_nothing_is_imported",
    "V03": "tests/services/test_records.py::test_v02_v03_a_file_that_cannot_be_read_is_refused_with_its_line_and_nothing_is_imported",
    # authz
    "Z01": _AGENCY + "test_a_wrong_body_is_refused_with_pointers_and_without_its_values[Z01 a sender of its own]",
    "Z03": _AGENCY + "test_every_route_but_those_of_the_public_needs_a_token_with_its_own_scope",
    "Z04": "tests/http/test_who_looked.py::test_z04_z12_an_auditor_sees_what_another_person_has_granted_once",
    "Z12": "tests/http/test_who_looked.py::test_z04_z12_an_auditor_sees_what_another_person_has_granted_once",
    "Z05": "tests/services/test_approve.py::test_z05_nobody_approves_what_he_asked_under_no_client_and_no_name",
    "Z07": _AGENCY + "test_z07_tokens_of_another_node_or_time_are_refused",
    "Z08": _RECEIVE + "test_a_member_without_the_role_is_refused_as_not_permitted",
    "Z09": "tests/services/test_converse.py::test_a_forwarded_request_holds_what_its_originator_lets_go_and_nothing_more",
    "Z10": _DOS + "test_a_flood_of_one_member_is_answered_429_and_the_others_are_served",
    "Z13": "tests/e2e/test_processes.py::test_z13_the_listeners_share_no_route",
    # dos
    "M02": _DOS + "test_the_work_for_an_object_grows_with_its_members_whatever_they_are_called",
    "M04": _DOS + "test_what_our_systems_do_not_fetch_is_bounded_for_each_member_and_flows_again_when_fetched",
    "M05": "tests/services/test_attachments.py::test_the_size_of_an_attachment_is_what_was_said_first",
    "M07": _DOS + "test_parcels_that_can_never_succeed_use_up_a_small_budget",
    # logs
    "G02": "tests/e2e/test_processes.py::test_g02_no_canary_is_in_any_log_metric_ledger_or_problem",
    "G03": _FRAMING + "test_g03_our_own_error_shows_nothing_of_itself",
    "G04": "tests/attacks/test_logs.py::test_a_flood_of_rejects_is_a_few_lines_and_their_number",
    # ops
    "P01": "tests/attacks/test_ops.py::test_a_node_of_the_demo_does_not_go_live",
    "P02": "tests/keys/test_keys_store.py::test_keys_that_others_may_read_are_refused_with_the_fix",
    "P05": "tests/services/test_rollback.py::test_p05_a_backup_from_before_a_rotation_is_refused_and_what_it_holds_stays_readable",
    "P06": "tests/attacks/test_ops.py::test_a_process_of_ours_writes_no_core_and_lets_nobody_read_its_memory",
    # quantum
    "Q01": _QUANTUM + "test_half_of_the_recipients_key_opens_nothing",
    "Q02": _DIRECTORY + "test_a_record_below_the_policy_floor_never_comes_into_force[an X25519 key to seal to]",
    "Q03": _QUANTUM + "test_who_forges_every_ed25519_signature_is_still_refused",
    "Q04": _QUANTUM + "test_what_is_sent_has_the_length_of_its_class",
    # ledger
    "L01": _LEDGER + "test_what_an_administrator_does_to_entries_the_auditor_sees[L01 an entry changed]",
    "L02": _LEDGER + "test_what_an_administrator_does_to_entries_the_auditor_sees[L02 an entry deleted]",
    "L04": _LEDGER + "test_l04_a_database_that_was_rewritten_and_signed_with_the_stolen_keys_is_caught_by_witness_and_peer",
    "L05": _WITNESS + "test_two_histories_are_never_cosigned_and_both_are_kept",
    "L07": _LEDGER + "test_l07_a_bit_that_flipped_in_a_tile_is_noticed_before_a_proof_leaves_and_mended_from_the_entries",
    "L08": "tests/services/test_commit.py::test_another_process_under_the_head_lock_makes_the_batch_wait_not_fork",
    "L10": _LEDGER + "test_l10_a_message_without_its_entry_is_never_sent",
    "L11": "tests/adapters/test_postgres_schema.py::test_the_application_may_add_to_the_ledger_but_not_change_it_nor_the_schema",
    "L13": "tests/services/test_erase.py::test_content_goes_with_its_keys_and_every_proof_stays",
    # ui
    "U01": "tests/browser/test_verifying.py::test_u01_what_another_ledger_says_is_text",
    "U02": _CONSOLE + "test_u02_a_form_of_another_site_changes_nothing",
    "U03": _CONSOLE + "test_u03_u07_no_page_is_framed_cached_or_told_from_where_one_came",
    "U04": _CONSOLE + "test_u04_guessing_links_ends_in_429_and_says_the_same_of_each",
    "U05": _CONSOLE + "test_u05_a_session_gets_a_fresh_id_in_a_cookie_that_only_its_site_and_no_script_reads",
    "U07": _CONSOLE + "test_u03_u07_no_page_is_framed_cached_or_told_from_where_one_came",
    "U08": _CONSOLE + "test_u08_no_template_has_a_script_style_or_handler_of_its_own",
    "L14": _WITNESS + "test_too_few_witnesses_are_an_alarm_until_there_are_enough",
}  # fmt: skip

_LATER = "no issue yet: the adapter or device is not part of the first six"

WAITS: dict[str, str] = {
    **dict.fromkeys(("W01", "W02", "W04", "W05", "W06"), _LATER),
    **dict.fromkeys(("F01", "F02", "F03", "F05", "F07"), _LATER),
    **dict.fromkeys(("X01", "X02", "X04", "X05", "X06"), _LATER),
    **dict.fromkeys(("P03", "P07"), _LATER),
}

CODES: dict[str, str] = {
    # as the list of attacks names it -> as docs/protocol.md section 8 names it
    "env.json": "json.number",  # NaN and the infinities are numbers that JSON does not have
    "env.json_duplicate": "json.duplicate",
    "env.json_encoding": "json.encoding",
    "env.json_depth": "json.depth",
    "env.json_number": "json.number",
    "env.b64": "b64.invalid",
    "env.schema": "schema.invalid",
    "id_conflict": "id.conflict",
    "evidence.nondelivery": "expired",  # the code of the `undelivered` entry
    "rcpt.signer": "proof.origin",
    "rcpt.hash": "proof.entry",
    "rcpt.mismatch": "proof.entry",
    "dir.threshold": "dir.signature",
    "dir.downgrade": "dir.key_use",  # a seal key that is no HPKE-9-KE key
    "dir.id": "dir.invalid",
    "dir.policy_floor": "dir.invalid",  # a record that names another suite, a directory that names any
    "authz.sender": "schema.invalid",  # no document of a client has room for a sender: it is the node's member
    "authz.role": "auth.scope",
    "authz.dual_control": "approval.self",
    "authz.content": "approval.needed",  # the attempt is the `approval.asked` entry
    "policy.originator": "handling.forbidden",
    "policy.type": "msg.not_permitted",
    "token.invalid": "auth.invalid",
    "token.scope": "auth.scope",
    "config.insecure": "config.invalid",
    "keys.permissions": "key.store",
    "att.size": "blob.range",  # another size than was said first; above our limit it is http.too_large
    "bundle.recipient": "courier.bag",
    "policy.pq_required": "member.unknown",  # a record below the floor is none
}
