"""Every fault of the project's list with the test that asserts what must hold after it, or with what is open.

The kinds are those of shared/faults.yaml: K kill, D database, N network, C clock, P poison, S slow, R rotation, B backlog, U upgrade.
K01 to K20 are the points of tests/fault/points.py.

Invariants: I1 to I7, I9 and I11 are judged after every fault of real processes (rounds.py), I1 to I7, I9 and I12 after every seed of
the simulation. No fault changes what is written where: I8 is tests/e2e/test_processes.py::test_g02. I10 is `make fairness`, and the
tests named at B02, S01 and S02. Reduced: K22 kills nobody; D05 promotes a synchronous replica, and what lacks entries is refused in tests/services/test_rollback.py;
N11 stops the hub, and a quiet one is test_a_hub_alone_ends_nothing; S01 has one such peer; B03 has 70,000 entries, `make audit` a
million; network namespaces would need TLS between them, so N05 drops packets of the loopback.
"""

_DATABASE, _NETWORK = "tests/fault/test_database_faults.py::", "tests/fault/test_network_faults.py::"
_CLOCK = "tests/fault/test_clock_faults.py::"
_DELIVER, _DIRECTORY = "tests/services/test_deliver.py::", "tests/adapters/test_directory.py::"
_RECEIVE, _POISON = "tests/services/test_receive.py::", "tests/services/test_poison.py::"
_MOTION, _WAYS = "tests/services/test_keys_in_motion.py::", "tests/services/test_ways.py::"
CRASH = "tests/fault/test_crash_points.py::test_after_a_crash_everything_is_there_once_and_proven"

CATALOGUE: dict[str, str] = {
    **{f"K{n:02}": CRASH for n in range(1, 21)},
    "K21": "tests/services/test_witness.py::test_k21_a_request_whose_answer_was_lost_is_gone_on_with_from_the_size_that_the_witness_names",
    "K22": _MOTION + "test_every_key_of_both_ends_changes_while_messages_fly",
    "K23": "tests/adapters/test_postgres_schema.py::test_k23_a_migration_that_is_killed_leaves_nothing_and_is_done_again",
    "K24": "tests/services/test_courier.py::test_k24_export_and_import_that_are_killed_leave_nothing_half_and_are_done_again",
    "K25": "tests/fault/test_crash_points.py::test_k25_nodes_that_are_killed_at_random_for_a_minute_converge",
    "D01": _DATABASE + "test_d01_a_killed_backend_costs_nothing_but_time",
    "D02": _DATABASE + "test_d02_what_was_answered_survives_a_killed_postmaster",
    "D03": _DATABASE + "test_d03_nodes_outlive_restarts_of_the_database",
    "D04": _DATABASE + "test_d04_a_batch_whose_connection_is_ended_is_answered_or_done_again",
    "D05": "tests/e2e/test_runbooks.py::test_a_promoted_replica_has_all_that_was_accepted_and_passes_the_guard_by_the_word_of_the_other_members",
    "D06": "tests/services/test_rollback.py::test_an_older_copy_of_the_database_is_recognised",
    "D07": _DATABASE + "test_d07_what_was_answered_survives_a_full_disk",
    "D08": "tests/runtime/test_ledger_files.py::test_d08_an_export_that_a_full_disk_cuts_leaves_nothing_half_and_is_gone_on_with",
    "D09": "tests/fault/test_storage_and_backlog.py::test_d09_a_guard_whose_fsync_fails_ends_the_process_at_once",
    "D10": _DATABASE + "test_d10_a_lock_that_a_person_holds_delays_and_breaks_nothing",
    "D11": _DATABASE + "test_d11_an_exhausted_pool_is_busy_with_a_time_to_come_again",
    "D12": CRASH,
    "D13": "tests/adapters/test_postgres_schema.py::test_d13_a_bit_that_flips_on_the_disk_is_a_store_that_is_away_and_never_a_wrong_answer",
    "N01": _NETWORK + "test_n01_after_a_partition_the_queues_drain_without_a_storm",
    "N02": _NETWORK + "test_n02_what_arrived_though_its_answer_was_lost_is_there_once",
    "N03": _NETWORK + "test_n03_connections_that_are_reset_in_their_midst_cost_nothing",
    "N04": _NETWORK + "test_n04_delay_is_waited_for_without_a_storm",
    "N05": _NETWORK + "test_n05_lost_packets_cost_nothing_but_time",
    "N06": _NETWORK + "test_n06_a_line_of_256_kbit_is_enough",
    "N07": _RECEIVE + "test_one_parcel_many_times_in_one_post_and_in_many_posts_is_one_row",
    "N08": "tests/http/test_tls.py::test_t06_another_members_server_is_not_told_a_byte",
    "N09": _NETWORK + "test_n09_a_connection_whose_other_end_vanished_is_given_up",
    "N10": _NETWORK + "test_n10_half_an_answer_is_no_receipt",
    "N11": _WAYS + "test_a_hub_that_is_away_or_keeps_quiet_is_gone_around",
    "C01": _CLOCK + "test_c01_what_a_member_with_a_wrong_clock_refuses_waits_until_it_is_right",
    "C02": _CLOCK + "test_c02_clocks_that_jump_back_a_day_and_forth_again_cost_nothing",
    "C03": _DELIVER + "test_a_directory_beyond_its_grace_holds_submissions_and_parcels_until_it_is_fresh",
    "C04": "tests/services/test_far_dates.py::test_c04_messages_on_both_sides_of_a_moment_are_proven_alike",
    "P01": _POISON + "test_p01_a_request_that_breaks_the_register_waits_for_a_person_and_others_are_answered",
    "P02": _POISON + "test_p02_what_breaks_us_is_set_aside_after_three_tries_and_replayed_by_hand",
    "P03": "tests/attacks/test_dos.py::test_parcels_that_can_never_succeed_use_up_a_small_budget",
    "S01": _DELIVER + "test_a_peer_that_hangs_delays_no_other",
    "S02": "tests/services/test_dispatch.py::test_s02_a_system_that_takes_its_time_delays_no_message_and_no_receipt",
    "S03": _NETWORK + "test_s03_a_node_that_was_frozen_goes_on_and_forks_nothing",
    "R01": _MOTION + "test_every_key_of_both_ends_changes_while_messages_fly",
    "R02": _MOTION + "test_r02_a_signing_key_that_changes_between_two_attempts_changes_no_receipt",
    "R03": _DELIVER + "test_a_message_whose_signing_key_was_revoked_is_never_sent",
    "R04": "tests/e2e/test_processes.py::test_the_next_ledger_is_opened_under_load_and_the_former_is_closed",
    "R05": _DIRECTORY + "test_r05_nodes_that_missed_two_roots_walk_the_chain_to_the_newest",
    "B04": "tests/fault/test_soak.py::test_b04_a_mesh_under_random_faults_loses_nothing",
    **dict.fromkeys(
        ("B01", "B02"),
        "tests/fault/test_storage_and_backlog.py::test_b01_b02_a_queue_drains_in_bounded_memory_and_what_is_urgent_does_not_wait_for_it",
    ),
    "U02": "tests/adapters/test_postgres_schema.py::test_u02_whoever_goes_back_to_older_software_finds_everything_that_it_writes_and_reads",
    "B03": "tests/interop/test_goverify.py::test_a_large_ledger_of_ours_holds_for_go_and_for_the_independent_verifier",
}

OPEN: dict[str, str] = {
    "U01": "there is one version of the wire so far; its vectors are frozen (test_vectors.py)",
}
