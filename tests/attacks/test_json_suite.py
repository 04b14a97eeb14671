r"""What JSONTestSuite asks of a parser (n_* must fail, y_* are JSON, i_* are open), answered by our strict parser.

The list is our own, after the ideas of that suite. Where a document is JSON and two parsers could read it differently, it
is refused all the same: docs/protocol.md section 1 says which.
"""

import json
from typing import Any

import pytest

from protocols.strict import parse_json
from tests.protocols.forms import code_of

I, E, N, D, P = "json.invalid", "json.encoding", "json.number", "json.duplicate", "json.depth"  # noqa: E741

NO: dict[str, tuple[bytes, str]] = {
    # arrays
    "array_1_true_without_comma": (b"[1 true]", I), "array_a_invalid_utf8": (b"[a\xe5]", E), "array_colon_instead_of_comma": (b'["": 1]', I),
    "array_comma_after_close": (b'[""],', I), "array_comma_and_number": (b"[,1]", I), "array_double_comma": (b"[1,,2]", I),
    "array_double_extra_comma": (b'["x",,]', I), "array_extra_close": (b'["x"]]', I), "array_extra_comma": (b'["",]', I),
    "array_incomplete": (b'["x"', I), "array_incomplete_invalid_value": (b"[x", I), "array_inner_array_no_comma": (b"[3[4]]", I),
    "array_invalid_utf8": (b"[\xff]", E), "array_items_separated_by_semicolon": (b"[1:2]", I), "array_just_comma": (b"[,]", I),
    "array_just_minus": (b"[-]", I), "array_missing_value": (b'[   , ""]', I), "array_newlines_unclosed": (b'["a",\n4\n,1,', I),
    "array_number_and_comma": (b"[1,]", I), "array_number_and_several_commas": (b"[1,,]", I), "array_spaces_vertical_tab_formfeed": (b'["\x0ba"\\f]', I),
    "array_star_inside": (b"[*]", I), "array_unclosed": (b'[""', I), "array_unclosed_trailing_comma": (b"[1,", I),
    "array_unclosed_with_new_lines": (b"[1,\n1\n,1", I), "array_unclosed_with_object_inside": (b"[{}", I),
    # literals
    "incomplete_false": (b"[fals]", I), "incomplete_null": (b"[nul]", I), "incomplete_true": (b"[tru]", I), "capitalised_true": (b"[True]", I),
    "multidigit_number_then_00": (b"123\x00", E), "nan_lower": (b"[nan]", I), "undefined": (b"[undefined]", I),
    # numbers
    "number_++": (b"[++1234]", I), "number_+1": (b"[+1]", I), "number_+Inf": (b"[+Inf]", I), "number_-01": (b"[-01]", N), "number_-1.0.": (b"[-1.0.]", N),
    "number_-2.": (b"[-2.]", I), "number_-NaN": (b"[-NaN]", I), "number_.-1": (b"[.-1]", I), "number_.2e-3": (b"[.2e-3]", I), "number_0.1.2": (b"[0.1.2]", N),
    "number_0.3e": (b"[0.3e]", N), "number_0.3e+": (b"[0.3e+]", N), "number_0.e1": (b"[0.e1]", I), "number_0_capital_E": (b"[0E]", I),
    "number_0_capital_E+": (b"[0E+]", I), "number_0e": (b"[0e]", I), "number_0e+": (b"[0e+]", I), "number_1.0e": (b"[1.0e]", N), "number_1.0e+": (b"[1.0e+]", N),
    "number_1.0e-": (b"[1.0e-]", N), "number_1_000": (b"[1 000.0]", I), "number_1eE2": (b"[1eE2]", I), "number_2.e+3": (b"[2.e+3]", I),
    "number_2.e-3": (b"[2.e-3]", I), "number_2.e3": (b"[2.e3]", I), "number_9.e+": (b"[9.e+]", I), "number_Inf": (b"[Inf]", I), "number_NaN": (b"[NaN]", N),
    "number_U+FF11": ("[\uff11]".encode(), I), "number_expression": (b"[1+2]", I), "number_hex_1_digit": (b"[0x1]", I), "number_hex_2_digits": (b"[0x42]", I),
    "number_infinity": (b"[Infinity]", N), "number_invalid+-": (b"[0e+-1]", I), "number_invalid_negative_real": (b"[-123.123foo]", N),
    "number_invalid_utf8_in_bigger_int": (b"[123\xe5]", E), "number_invalid_utf8_in_exponent": (b"[1e1\xe5]", E), "number_invalid_utf8_in_int": (b"[0\xe5]\n", E),
    "number_minus_infinity": (b"[-Infinity]", N), "number_minus_sign_with_trailing_garbage": (b"[-foo]", I), "number_minus_space_1": (b"[- 1]", I),
    "number_neg_int_starting_with_zero": (b"[-012]", N), "number_neg_real_without_int_part": (b"[-.123]", I), "number_neg_with_garbage_at_end": (b"[-1x]", I),
    "number_real_garbage_after_e": (b"[1ea]", I), "number_real_with_invalid_utf8_after_e": (b"[1e\xe5]", E), "number_real_without_fractional_part": (b"[1.]", I),
    "number_starting_with_dot": (b"[.123]", I), "number_with_alpha": (b"[1.2a-3]", N), "number_with_alpha_char": (b"[1.8011670033376514H-308]", N),
    "number_with_leading_zero": (b"[012]", I), "number_with_underscores": (b"[1_000]", I), "number_octal": (b"[0o17]", I), "number_binary": (b"[0b1]", I),
    "number_suffix": (b"[1n]", I), "number_double_minus": (b"[--1]", I), "number_fullwidth_minus": ("[\u22121]".encode(), I),
    # objects
    "object_bad_value": (b'["x", truth]', I), "object_bracket_key": (b'{[: "x"}\n', I), "object_comma_instead_of_colon": (b'{"x", null}', I),
    "object_double_colon": (b'{"x"::"b"}', I), "object_emoji": ("{\U0001f1e8\U0001f1ed}".encode(), I), "object_garbage_at_end": (b'{"a":"a" 123}', I),
    "object_key_with_single_quotes": (b"{key: 'value'}", I), "object_lone_continuation_byte_in_key_and_trailing_comma": (b'{"\xb9":"0",}', E),
    "object_missing_colon": (b'{"a" b}', I), "object_missing_key": (b'{:"b"}', I), "object_missing_semicolon": (b'{"a" "b"}', I), "object_missing_value": (b'{"a":', I),
    "object_no_colon": (b'{"a"', I), "object_non_string_key": (b"{1:1}", I), "object_non_string_key_but_huge_number_instead": (b"{9999E9999:1}", I),
    "object_repeated_null_null": (b"{null:null,null:null}", I), "object_several_trailing_commas": (b'{"id":0,,,,,}', I), "object_single_quote": (b"{'a':0}", I),
    "object_trailing_comma": (b'{"id":0,}', I), "object_trailing_comment": (b'{"a":"b"}/**/', I), "object_trailing_comment_open": (b'{"a":"b"}/**//', I),
    "object_trailing_comment_slash_open": (b'{"a":"b"}//', I), "object_trailing_comment_slash_open_incomplete": (b'{"a":"b"}/', I),
    "object_two_commas_in_a_row": (b'{"a":"b",,"c":"d"}', I), "object_unquoted_key": (b'{a: "b"}', I), "object_unterminated-value": (b'{"a":"a', I),
    "object_with_single_string": (b'{ "foo" : "bar", "a" }', I), "object_with_trailing_garbage": (b'{"a":"b"}#', I), "object_only_comma": (b"{,}", I),
    # strings
    "string_1_surrogate_then_escape": (b'["\\uD800\\"]', I), "string_1_surrogate_then_escape_u": (b'["\\uD800\\u"]', I),
    "string_1_surrogate_then_escape_u1": (b'["\\uD800\\u1"]', I), "string_1_surrogate_then_escape_u1x": (b'["\\uD800\\u1x"]', I),
    "string_accentuated_char_no_quotes": ("[\u00e9]".encode(), I), "string_backslash_00": (b'["\\\x00"]', E), "string_escape_x": (b'["\\x00"]', I),
    "string_escaped_backslash_bad": (b'["\\\\\\"]', I), "string_escaped_ctrl_char_tab": (b'["\\\t"]', I), "string_escaped_emoji": ('["\\\U0001f300"]'.encode(), I),
    "string_incomplete_escape": (b'["\\"]', I), "string_incomplete_escaped_character": (b'["\\u00A"]', I), "string_incomplete_surrogate": (b'["\\uD834\\uDd"]', I),
    "string_incomplete_surrogate_escape_invalid": (b'["\\uD800\\uD800\\x"]', I), "string_invalid-utf-8-in-escape": (b'["\\u\xe5"]', E),
    "string_invalid_backslash_esc": (b'["\\a"]', I), "string_invalid_unicode_escape": (b'["\\uqqqq"]', I), "string_invalid_utf8_after_escape": (b'["\\\xe5"]', E),
    "string_leading_uescaped_thinspace": (b'[\\u0020"asd"]', I), "string_no_quotes_with_bad_escape": (b"[\\n]", I), "string_single_doublequote": (b'"', I),
    "string_single_quote": (b"['single quote']", I), "string_single_string_no_double_quotes": (b"abc", I), "string_start_escape_unclosed": (b'["\\', I),
    "string_unescaped_ctrl_char": (b'["a\x00a"]', E), "string_unescaped_newline": (b'["new\nline"]', I), "string_unescaped_tab": (b'["\t"]', I),
    "string_unicode_CapitalU": (b'"\\UA66D"', I), "string_with_trailing_garbage": (b'""x', I),
    **{f"string_unescaped_{c:02x}": (b'["a' + bytes([c]) + b'a"]', I) for c in range(1, 32)},
    # structure
    "structure_100000_opening_arrays": (b"[" * 100_000, P), "structure_U+2060_word_joined": ("[\u2060]".encode(), I), "structure_UTF8_BOM_no_data": (b"\xef\xbb\xbf", E),
    "structure_angle_bracket_.": (b"<.>", I), "structure_angle_bracket_null": (b"[<null>]", I), "structure_array_trailing_garbage": (b"[1]x", I),
    "structure_array_with_extra_array_close": (b"[1]]", I), "structure_array_with_unclosed_string": (b'["asd]', I), "structure_ascii-unicode-identifier": ("a\u00e5".encode(), I),
    "structure_close_unopened_array": (b"1]", I), "structure_comma_instead_of_closing_brace": (b'{"x": true,', I), "structure_double_array": (b"[][]", I),
    "structure_end_array": (b"]", I), "structure_incomplete_UTF8_BOM": (b"\xef\xbb{}", E), "structure_lone-invalid-utf-8": (b"\xe5", E),
    "structure_lone-open-bracket": (b"[", I), "structure_no_data": (b"", I), "structure_null-byte-outside-string": (b"[\x00]", E), "structure_number_with_trailing_garbage": (b"2@", I),
    "structure_object_followed_by_closing_object": (b"{}}", I), "structure_object_unclosed_no_value": (b'{"":', I), "structure_object_with_comment": (b'{"a":/*comment*/"b"}', I),
    "structure_object_with_trailing_garbage": (b'{"a": true} "x"', I), "structure_open_array_apostrophe": (b"['", I), "structure_open_array_comma": (b"[,", I),
    "structure_open_array_object": (b'[{"":' * 50_000, P), "structure_open_array_open_object": (b"[{", I), "structure_open_array_open_string": (b'["a', I),
    "structure_open_array_string": (b'["a"', I), "structure_open_object": (b"{", I), "structure_open_object_close_array": (b"{]", I), "structure_open_object_comma": (b"{,", I),
    "structure_open_object_open_array": (b"{[", I), "structure_open_object_open_string": (b'{"a', I), "structure_open_object_string_with_apostrophes": (b"{'a'", I),
    "structure_open_open": (b'["\\{["\\{["\\{["\\{', I), "structure_single_eacute": (b"\xe9", E), "structure_single_star": (b"*", I), "structure_trailing_#": (b'{"a":"b"}#{}', I),
    "structure_uescaped_LF_before_string": (b'[\\u000A""]', I), "structure_unclosed_array": (b"[1", I), "structure_unclosed_array_partial_null": (b"[ false, nul", I),
    "structure_unclosed_array_unfinished_false": (b"[ true, fals", I), "structure_unclosed_array_unfinished_true": (b"[ false, tru", I),
    "structure_unclosed_object": (b'{"asd":"asd"', I), "structure_unicode-identifier": ("\u00e5".encode(), I), "structure_whitespace_U+2060": ("\u2060".encode(), I),
    "structure_whitespace_formfeed": (b"[\x0c]", I), "structure_whitespace_nbsp": ("[\u00a0]".encode(), I), "structure_two_values": (b"1 2", I), "structure_newline_values": (b"{}\n{}", I),
}  # fmt: skip

YES: dict[str, bytes] = {
    "array_arraysWithSpaces": b"[[]   ]", "array_empty-string": b'[""]', "array_empty": b"[]", "array_ending_with_newline": b'["a"]\n', "array_false": b"[false]",
    "array_heterogeneous": b'[null, 1, "1", {}]', "array_null": b"[null]", "array_with_1_and_newline": b"[1\n]", "array_with_leading_space": b" [1]",
    "array_with_several_null": b"[1,null,null,null,2]", "array_with_trailing_space": b"[2] ", "number": b"[123]", "number_0": b"[0]", "number_after_space": b"[ 4]",
    "number_negative_int": b"[-123]", "number_negative_one": b"[-1]", "number_simple_int": b"[123]", "number_largest": b"[9007199254740991]",
    "number_smallest": b"[-9007199254740991]", "object": b'{"asd":"sdf", "dfg":"fgh"}', "object_basic": b'{"asd":"sdf"}', "object_empty": b"{}", "object_empty_key": b'{"":0}',
    "object_long_strings": b'{"x":[{"id": "' + b"x" * 40 + b'"}], "id": "' + b"x" * 40 + b'"}', "object_simple": b'{"a":[]}',
    "object_string_unicode": b'{"title":"\\u041f\\u043e\\u043b"}', "object_with_newlines": b'{\n"a": "b"\n}', "object_key_differs_by_case": b'{"a":1,"A":1}',
    "string_1_2_3_bytes_UTF-8_sequences": b'["\\u0060\\u012a\\u12AB"]', "string_accepted_surrogate_pair": b'["\\uD801\\udc37"]',
    "string_accepted_surrogate_pairs": b'["\\ud83d\\ude39\\ud83d\\udc8d"]', "string_allowed_escapes": b'["\\"\\\\\\/\\b\\f\\n\\r\\t"]', "string_backslash_and_u_escaped_zero": b'["\\\\u0000"]',
    "string_backslash_doublequotes": b'["\\""]', "string_comments": b'["a/*b*/c/*d//e"]', "string_double_escape_a": b'["\\\\a"]', "string_double_escape_n": b'["\\\\n"]',
    "string_escaped_control_character": b'["\\u0012"]', "string_escaped_noncharacter": b'["\\uFFFF"]', "string_in_array": b'["asd"]', "string_in_array_with_leading_space": b'[ "asd"]',
    "string_last_surrogates_1_and_2": b'["\\uDBFF\\uDFFF"]', "string_nbsp_uescaped": b'["new\\u00A0line"]', "string_nonCharacterInUTF-8_U+10FFFF": '["\U0010ffff"]'.encode(),
    "string_nonCharacterInUTF-8_U+FFFF": '["\uffff"]'.encode(), "string_one-byte-utf-8": b'["\\u002c"]', "string_pi": '["\u03c0"]'.encode(), "string_reserved": '["\U0001bfff"]'.encode(),
    "string_simple_ascii": b'["asd "]', "string_space": b'" "', "string_surrogates_U+1D11E": b'["\\uD834\\uDd1e"]', "string_three-byte-utf-8": b'["\\u0821"]',
    "string_two-byte-utf-8": b'["\\u0123"]', "string_u+2028_line_sep": '["\u2028"]'.encode(), "string_u+2029_par_sep": '["\u2029"]'.encode(), "string_uEscape": b'["\\u0061\\u30af"]',
    "string_uescaped_newline": b'["new\\u000Aline"]', "string_unescaped_char_delete": b'["\x7f"]', "string_unicode_2": '["\u2342"]'.encode(), "string_unicode_U+200B": b'["\\u200B"]',
    "string_unicode_U+FDD0": b'["\\uFDD0"]', "string_unicode_U+10FFFE": b'["\\uDBFF\\uDFFE"]', "string_unicode_escaped_double_quote": b'["\\u0022"]', "string_utf8": '["\u20ac\U0001d11e"]'.encode(),
    "string_with_del_character": b'["a\x7fa"]', "structure_lonely_false": b"false", "structure_lonely_int": b"42", "structure_lonely_negative_int": b"-1", "structure_lonely_null": b"null",
    "structure_lonely_string": b'"asd"', "structure_lonely_true": b"true", "structure_string_empty": b'""', "structure_trailing_newline": b'["a"]\n', "structure_true_in_array": b"[true]",
    "structure_whitespace_array": b" [] ", "structure_every_white_space": b" \t\r\n[ \t\r\n1 \t\r\n] \t\r\n", "string_bom_inside": '["\ufeff"]'.encode(),
    "structure_deepest": b"[" * 32 + b"]" * 32,
}  # fmt: skip

# JSON by RFC 8259, and refused: another parser reads another value, or none
STRICTER: dict[str, tuple[bytes, str]] = {
    **{f"number_{text.decode()}": (b"[" + text + b"]", N) for text in (
        b"0e+1", b"0e1", b"-0", b"1E22", b"1E-2", b"1E+2", b"123e45", b"123.456e78", b"1e-2", b"1e+2", b"123.456789", b"-0.0", b"1.0", b"0.0", b"20e1",
        b"-0.000000000000000000000000000000000000000000000000000000000000000000000000000001", b"9007199254740992", b"-9007199254740992")},
    "object_duplicated_key": (b'{"a":"b","a":"c"}', D), "object_duplicated_key_and_value": (b'{"a":"b","a":"b"}', D),
    "object_duplicated_escaped_key": (b'{"a":1,"\\u0061":2}', D), "object_escaped_null_in_key": (b'{"foo\\u0000bar": 42}', E), "string_null_escape": (b'["\\u0000"]', E),
    # i_*: implementations may choose
    **{f"i_number_{text.decode()[:24]}": (b"[" + text + b"]", N) for text in (
        b"123123e100000", b"-1e+9999", b"1.5e+9999", b"-123123e100000", b"0.4e00669999999999999999999999999999999999", b"123e-10000000",
        b"-123123123123123123123123123123", b"100000000000000000000", b"-237462374673276894279832749832423479823246327846")},
    **{f"i_string_{text[:14].decode()}": (b'["' + text + b'"]', E) for text in (
        b"\\uDADA", b"\\uD888\\u1234", b"\\uD800\\n", b"\\uDd1ea", b"\\uD800\\uD800\\n", b"\\ud800", b"\\ud800abc", b"\\uDd1e\\uD834", b"\\uDFAA")},
    "i_object_key_lone_2nd_surrogate": (b'{"\\uDFAA":0}', E), "i_string_UTF-16LE_with_BOM": ('["\u00e9"]'.encode("utf-16"), E),
    **{f"i_string_{name}": (b'["' + data + b'"]', E) for name, data in {
        "UTF-8_invalid_sequence": b"\xe6\x97\xa5\xd1\x88\xfa", "UTF8_surrogate_U+D800": b"\xed\xa0\x80", "invalid_utf-8": b"\xff", "iso_latin_1": b"\xe9",
        "lone_utf8_continuation_byte": b"\x81", "not_in_unicode_range": b"\xf4\xbf\xbf\xbf", "overlong_sequence_2_bytes": b"\xc0\xaf",
        "overlong_sequence_6_bytes": b"\xfc\x83\xbf\xbf\xbf\xbf", "overlong_sequence_6_bytes_null": b"\xfc\x80\x80\x80\x80\x80", "truncated-utf-8": b"\xe0\xff", "overlong_null": b"\xc0\x80"}.items()},
    "i_string_utf16BE_no_BOM": ('["\u00e9"]'.encode("utf-16-be"), E), "i_string_utf16LE_no_BOM": ('["\u00e9"]'.encode("utf-16-le"), E), "i_utf32": ("[]".encode("utf-32"), E),
    "i_structure_500_nested_arrays": (b"[" * 500 + b"]" * 500, P), "i_structure_33_nested": (b"[" * 33 + b"]" * 33, P), "i_structure_UTF-8_BOM_empty_object": (b"\xef\xbb\xbf{}", E),
}  # fmt: skip


@pytest.mark.parametrize("name", NO)
def test_what_is_not_json_is_refused(name: str) -> None:
    data, code = NO[name]
    assert code_of(parse_json, data, bytes_max=1_000_000) == code


@pytest.mark.parametrize("name", STRICTER)
def test_json_that_parsers_read_differently_is_refused(name: str) -> None:
    data, code = STRICTER[name]
    assert code_of(parse_json, data, bytes_max=1_000_000) == code


@pytest.mark.parametrize("name", YES)
def test_json_is_read_as_every_parser_reads_it(name: str) -> None:
    found: Any = parse_json(YES[name], bytes_max=1_000_000)
    assert found == json.loads(YES[name])
    assert type(found) is type(json.loads(YES[name]))
