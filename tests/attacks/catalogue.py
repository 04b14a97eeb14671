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

CATALOGUE: dict[str, str] = {
    # transport
    # http
    # httpsig
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
    # authz
    # dos
    # logs
    # ops
    # quantum
    "Q01": _QUANTUM + "test_half_of_the_recipients_key_opens_nothing",
    "Q02": _QUANTUM + "test_nothing_is_sent_to_a_member_without_a_post_quantum_key",
    "Q03": _QUANTUM + "test_who_forges_every_ed25519_signature_is_still_refused",
    "Q04": _QUANTUM + "test_what_is_sent_has_the_length_of_its_class",
}  # fmt: skip

_LANGUAGE, _GUNS, _FAULTS, _AUDIT = "issue 4", "issue 5", "issue 6", "issue 7"  # the third, fourth, fifth, sixth
_LATER = "no issue yet: the adapter or device is not part of the first six"

WAITS: dict[str, str] = {
    **dict.fromkeys(("R10", "M05", "P05"), _FAULTS),
    **dict.fromkeys(("Z04", "Z05", "Z12"), _AUDIT),
    "Z09": _LANGUAGE,
    **dict.fromkeys(("V02", "V03"), _GUNS),
    **dict.fromkeys(("L01", "L02", "L04", "L05", "L07", "L08", "L10", "L11", "L13", "L14"), _AUDIT),
    **dict.fromkeys(("U01", "U02", "U03", "U04", "U05", "U07", "U08"), _AUDIT),
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
    "policy.pq_required": "member.unknown",  # a record below the floor is none
}
