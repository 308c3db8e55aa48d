"""Attempts that are tested beside the part that they attack, by their numbers."""

from __future__ import annotations

from collections.abc import Mapping

_POSTGRES = "tests/integration/community/test_attacks_postgres.py"
_SQLITE = "tests/integration/community/test_attacks_sqlite.py"
_REDIS = "tests/integration/community/test_redis.py"
_HTTP = "tests/integration/community/test_http.py"
_ARCHIVE = "tests/unit/platform/test_archive.py"

ELSEWHERE: Mapping[int, str] = {
    49: f"{_HTTP}::test_attack_metadata_address",
    50: f"{_HTTP}::test_attack_dns_answers_that_change",
    51: f"{_HTTP}::test_attack_redirect_to_a_private_address",
    78: f"{_POSTGRES}::test_setting_the_default_does_not_make_it_writable",
    79: f"{_POSTGRES}::test_a_transaction_cannot_be_made_writable",
    80: f"{_POSTGRES}::test_the_hosts_transaction_cannot_be_ended",
    81: f"{_POSTGRES}::test_definer_functions_are_closed",
    82: f"{_POSTGRES}::test_code_is_not_run",
    83: f"{_POSTGRES}::test_temporary_tables_are_not_made",
    84: f"{_POSTGRES}::test_files_and_programs_are_out_of_reach",
    85: f"{_POSTGRES}::test_nobody_sleeps_or_holds_locks",
    86: f"{_POSTGRES}::test_memory_is_the_hosts",
    87: f"{_POSTGRES}::test_the_role_is_refused_to_change_itself",
    88: f"{_POSTGRES}::test_catalogues_tell_nothing_of_others",
    89: f"{_POSTGRES}::test_no_messages_are_sent",
    90: f"{_POSTGRES}::test_one_statement_at_a_time",
    91: f"{_SQLITE}::test_the_fence_cannot_be_taken_down",
    92: f"{_REDIS}::test_other_commands_are_refused",
    93: f"{_REDIS}::test_another_plugin_s_keys_are_out_of_reach",
    101: f"{_ARCHIVE}::test_no_member_of_a_zip_lands_outside",
    102: f"{_ARCHIVE}::test_tar_members_that_are_no_files_are_refused",
    103: f"{_ARCHIVE}::test_names_that_collide_are_refused",
    104: f"{_ARCHIVE}::test_bombs_are_stopped_while_they_unpack",
    105: f"{_ARCHIVE}::test_bad_names_are_refused",
}
