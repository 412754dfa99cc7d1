"""The parser against every sentence of the language's definition, and against hostile text.

One table of texts for what must be read, one for what must not; the reasons are part of the contract, because reports
count them.
"""

import pytest

from prox_hpc.programs import Caps, DropDoc, KeepChunk, KeepDoc, Normalize, RemoveLines, parse, render

R = RemoveLines
N = Normalize


@pytest.mark.parametrize(
    ("text", "operations"),
    [
        # remove_lines: positional or keyword, both families of keywords
        ("remove_lines(3, 7)", [R(3, 7)]),
        ("remove_lines(line_start=3, line_end=7)", [R(3, 7)]),
        ("remove_lines(start=3, end=7)", [R(3, 7)]),
        ("remove_lines(end=7, start=3)", [R(3, 7)]),
        ("remove_lines(3, end=7)", [R(3, 7)]),
        ("remove_lines(3, line_end=7)", [R(3, 7)]),
        # normalize: positional or keyword, default target, either quote
        ('normalize("a", "b")', [N("a", "b")]),
        ("normalize('a')", [N("a")]),
        ('normalize(source_str="a", target_str="b")', [N("a", "b")]),
        ("normalize(target_str='b', source_str=\"a\")", [N("a", "b")]),
        ('normalize("a", target_str="")', [N("a")]),
        # what the released executor misreads: commas, parentheses, equal signs, escapes, the other quote
        ('normalize("a, b")', [N("a, b")]),
        ('normalize("(c) 2024 (x)")', [N("(c) 2024 (x)")]),
        ('normalize("http://a.b/c?d=e&f=g", "")', [N("http://a.b/c?d=e&f=g")]),
        (r'normalize("say \"hi\"", "it\'s")', [N('say "hi"', "it's")]),
        (r"normalize('it\'s', 'a\tb')", [N("it's", "a\tb")]),
        (r'normalize("\u00e9\x41\101\N{BULLET}\U0001F600")', [N("éAA•\U0001f600")]),
        (r'normalize("C:\dir")', [N(r"C:\dir")]),  # an unknown escape stays, as in Python
        ('normalize("# no comment; keep_chunk()")', [N("# no comment; keep_chunk()")]),
        ('normalize("“curly”")', [N("“curly”")]),
        # no change, and the alias
        ("keep_chunk()", [KeepChunk()]),
        ("untouch_doc()", [KeepChunk()]),
        ("keep_chunk()\nremove_lines(0, 0)", [KeepChunk(), R(0, 0)]),
        # separators and blanks
        ("remove_lines(0, 1)\nremove_lines(2, 3)", [R(0, 1), R(2, 3)]),
        ("remove_lines(0, 1);remove_lines(2, 3)", [R(0, 1), R(2, 3)]),
        ("remove_lines(0, 1) ; \n\n ; remove_lines(2, 3);\n", [R(0, 1), R(2, 3)]),
        ("  \t remove_lines ( \t0 ,  1 )  ", [R(0, 1)]),
        ("remove_lines(0,1)\r\nkeep_chunk()\r\n", [R(0, 1), KeepChunk()]),
        ("remove_lines(\n    start = 0,\n    end = 1,  # menu\n)", [R(0, 1)]),
        # comments
        ("# the menu\nremove_lines(0, 1)  # gone; really\nkeep_chunk()\n# end", [R(0, 1), KeepChunk()]),
        # one code fence
        ("```python\nremove_lines(0, 1)\n```", [R(0, 1)]),
        ("```\nremove_lines(0, 1)\n```\n", [R(0, 1)]),
        ("\n ```py\n# why\nremove_lines(0, 1);\n```  # done", [R(0, 1)]),
        # integers
        ("remove_lines(-1, 007)", [R(-1, 7)]),
        ("remove_lines(-0, 0)", [R(0, 0)]),
        (f"remove_lines(0, {'0' * 5000}12)", [R(0, 12)]),
        (f"remove_lines(0, {'9' * 20_000})", [R(0, 10**18)]),
        (f"remove_lines(-{'9' * 20_000}, 0)", [R(-(10**18), 0)]),
    ],
)
def test_chunk_programs_that_parse(text, operations):
    program = parse(text, "chunk")
    assert (program.status, program.reason, list(program.operations)) == ("ok", None, operations)
    assert (program.stage, program.text) == ("chunk", text)
    assert parse(render(operations), "chunk").operations == tuple(operations)


@pytest.mark.parametrize(
    ("text", "operations"),
    [
        ("keep_doc()", [KeepDoc()]),
        ("drop_doc()", [DropDoc()]),
        ("untouch_doc()", [KeepDoc()]),
        (" drop_doc ( ) ; drop_doc()", [DropDoc(), DropDoc()]),
        ("```\nkeep_doc()\n```", [KeepDoc()]),
    ],
)
def test_doc_programs_that_parse(text, operations):
    program = parse(text, "doc")
    assert (program.status, list(program.operations)) == ("ok", operations)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no call"),
        (" \n\t\n", "no call"),
        (";", "no call"),
        ("# only a comment", "no call"),
        ("```\n```", "no call"),
        ("```python\n# nothing\n```", "no call"),
        # expressions and other Python
        ("remove_lines(1 + 1, 3)", "not a literal"),
        ("remove_lines(1, 2 * 3)", "not a literal"),
        ("remove_lines((1), 2)", "not a literal"),
        ("remove_lines(+1, 2)", "not a literal"),
        ("remove_lines(- 1, 2)", "not a literal"),
        ("remove_lines(*range(2))", "not a literal"),
        ("remove_lines(**{})", "not a literal"),
        ("remove_lines([0], 1)", "not a literal"),
        ("remove_lines(0, None)", "not a literal"),
        ("remove_lines(0, True)", "not a literal"),
        ("remove_lines(0, 1.0)", "not a literal"),
        ("remove_lines(0, 1e3)", "not a literal"),
        ("remove_lines(0, 0x10)", "not a literal"),
        ("remove_lines(0, 1_0)", "not a literal"),
        ("remove_lines(0 1)", "not a literal"),
        ("remove_lines(start==0, end=1)", "not a literal"),
        ("remove_lines(start:=0, end=1)", "not a literal"),
        ("remove_lines(0, keep_chunk())", "not a literal"),
        ("x = remove_lines(0, 1)", "unknown call"),
        ("remove_lines = 3", "not a call"),
        ("remove_lines", "unfinished call"),
        ("keep_chunk", "unfinished call"),
        ("keep_chunk() + keep_chunk()", "text after a call"),
        ("keep_chunk().x", "text after a call"),
        ("keep_chunk() keep_chunk()", "text after a call"),
        ("keep_chunk()()", "text after a call"),
        ("(keep_chunk())", "not a call"),
        ("import os", "unknown call"),
        ("__import__('os').system('true')", "unknown call"),
        ("lambda: 0", "unknown call"),
        # wrong types
        ('remove_lines("0", "1")', "wrong argument type"),
        ("normalize(3)", "wrong argument type"),
        ('normalize("a", 3)', "wrong argument type"),
        # unknown, missing, extra, repeated
        ("delete_lines(0, 1)", "unknown call"),
        ("Remove_lines(0, 1)", "unknown call"),
        ("remove_lines(first=0, last=1)", "unknown keyword"),
        ("remove_lines(all=True)", "unknown keyword"),
        ("normalize(start='a')", "unknown keyword"),
        ("remove_lines()", "missing argument"),
        ("remove_lines(0)", "missing argument"),
        ("remove_lines(end=1)", "missing argument"),
        ("remove_lines(,)", "missing argument"),
        ("remove_lines(0,,1)", "missing argument"),
        ("normalize()", "missing argument"),
        ("normalize(target_str='a')", "missing argument"),
        ("remove_lines(0, 1, 2)", "too many arguments"),
        ("remove_lines(0, 1,,)", "too many arguments"),
        ("keep_chunk(0)", "too many arguments"),
        ("keep_chunk(,)", "too many arguments"),
        ("keep_chunk(why='x')", "unknown keyword"),
        ("remove_lines(start=0, start=1)", "repeated argument"),
        ("remove_lines(start=0, line_start=1)", "repeated argument"),
        ("remove_lines(0, start=1)", "repeated argument"),
        ("remove_lines(start=0, 1)", "positional argument after a keyword"),
        # strings that are not one plain literal
        ('normalize(f"a")', "not a literal"),
        ('normalize(r"a")', "not a literal"),
        ('normalize(b"a")', "not a literal"),
        ('normalize(u"a")', "not a literal"),
        ('normalize("""a""")', "not a literal"),
        ("normalize('''a''')", "not a literal"),
        ('normalize("a" "b")', "not a literal"),
        ('normalize("a" + "b")', "not a literal"),
        ('normalize("a" % 3)', "not a literal"),
        ('normalize("a".upper())', "not a literal"),
        ('normalize("a\nb")', "not a literal"),
        ("normalize(“a”)", "not a literal"),
        ("normalize(‘a’)", "not a literal"),
        ("normalize(«a»)", "not a literal"),
        (r'normalize("\x1")', "bad escape"),
        (r'normalize("\u12")', "bad escape"),
        (r'normalize("\U00110000")', "bad escape"),
        (r'normalize("\N{NO SUCH NAME}")', "bad escape"),
        (r'normalize("\N")', "bad escape"),
        (r'normalize("\N{LATIN SMALL LETTER A WITH MACRON AND GRAVE}")', "bad escape"),  # a named sequence
        # the other stage
        ("drop_doc()", "call of the other stage"),
        ("keep_doc()", "call of the other stage"),
        ("remove_lines(0, 1)\ndrop_doc()", "call of the other stage"),
        # free text, fences that are none
        ("I would remove the first line.", "unknown call"),
        ("keep_chunk()\nThe page is fine.", "unknown call"),
        ("Sure:\n```\nkeep_chunk()\n```", "unknown call"),
        ("```\nkeep_chunk()\n```\nDone.", "text after the code fence"),
        ("```\nkeep_chunk()\n```\n```\nkeep_chunk()\n```", "text after the code fence"),
        ("```\nkeep_chunk()", "code fence not closed"),
        ("```\nkeep_chunk()```", "text after a call"),
        ("keep_chunk()\n```", "not a call"),
        ("`keep_chunk()`", "not a call"),
        # unfinished without the flag
        ("remove_lines(0, 1", "unfinished call"),
        ('normalize("a', "unfinished call"),
        # unicode look-alikes
        ("remove_lines(٣, ٤)", "not a literal"),
        ("ｒemove_lines(0, 1)", "not a call"),
        ("remove_lines（0, 1）", "not a call"),
        ("remove_lines(0,\u00a01)", "not a literal"),
        ("rеmove_lines(0, 1)", "unknown call"),  # a Cyrillic letter
        ("\ufeffkeep_chunk()", "not a call"),
        # control characters and surrogates in the text
        ("keep_chunk()\0", "NUL byte"),
        ('normalize("\0")', "NUL byte"),
        ("\ud800", "not a call"),
        ("keep_chunk()\ud800", "text after a call"),
        ("keep_chunk()\vkeep_chunk()", "text after a call"),
        ("keep_chunk()\rkeep_chunk()", "text after a call"),
    ],
)
def test_chunk_programs_that_are_malformed(text, reason):
    program = parse(text, "chunk")
    assert (program.status, program.operations, program.reason) == ("malformed", (), reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("keep_doc()\ndrop_doc()", "keep and drop together"),
        ("drop_doc();untouch_doc()", "keep and drop together"),
        ("remove_lines(0, 1)", "call of the other stage"),
        ("keep_chunk()", "call of the other stage"),
        ("drop", "unfinished call"),
        ("This page has a dropdown menu", "unknown call"),
    ],
)
def test_doc_programs_that_are_malformed(text, reason):
    program = parse(text, "doc")
    assert (program.status, program.operations, program.reason) == ("malformed", (), reason)


CUT = [
    *('remove_lines(0, 1)\nnormalize(source_str = "a \\" b", target_str="c")'[:length] for length in range(19, 65)),
    "remove_lines(0, 1)\nremove_lines(start=-",
    "remove_lines(0, 1)\nremove_lines(0, 12",
    "remove_lines(0, 1)\nremove_lines(0, 12, ",
    "remove_lines(0, 1)\nremove_lines(line_",
    "remove_lines(0, 1)\nremove_lines(start ",
    "remove_lines(0, 1)\nkeep_chunk (",
    "remove_lines(0, 1)\nnormalize('a",
    "```python\nremove_lines(0, 1)\nrem",
    "```python\nremove_lines(0, 1)\n",
    "```python\nremove_lines(0, 1)\n`",
    "```python\nremove_lines(0, 1)\n``",
    "```python\nremove_lines(0, 1)\n```",
    "remove_lines(0, 1)\n# because",
    "remove_lines(0, 1)",
]


@pytest.mark.parametrize("text", CUT)
def test_a_cut_call_is_discarded_and_the_calls_before_it_stand(text):
    program = parse(text, "chunk", truncated=True)
    assert (program.status, program.operations) == ("truncated", (R(0, 1),))


def test_a_cut_never_executes_as_another_call():
    """The released executor reads `end=12` without its parenthesis as `end=1`."""
    assert parse("remove_lines(start=0, end=12", "chunk", truncated=True).operations == ()
    assert parse("remove_lines(start=0, end=12", "chunk", truncated=True).status == "truncated"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# note",
        "```python\n",
        "``",
        "remove_lines(0, 1)\nhello wor",
        "remove_lines(0, 1)\ndrop",
        "remove_lines(0, 1)\nremove_lines(0.5, 1",
        "remove_lines(0, 1)\nremove_lines('a",
        "remove_lines(0, 1)\nremove_lines(first",
        "remove_lines(0, 1)\nremove_lines(0, 1, 2",
        "remove_lines(0, 1)\nremove_lines(0, 1,,",
        "remove_lines(0, 1)\nnormalize(12",
        "remove_lines(0, 1)\nnormalize('a\nb",
        "remove_lines(0, 1)\nremo(",
        "remove_lines(0, 1)\nremo ",
        "remove_lines(1 + 1, 2)\nremo",
        "```\nkeep_chunk()\n```\nDone",
    ],
)
def test_malformed_comes_before_truncated(text):
    assert parse(text, "chunk", truncated=True).status == "malformed"


def test_caps_make_a_program_malformed_with_their_reason():
    assert parse("keep_chunk()\n" * 256, "chunk").status == "ok"
    assert parse("keep_chunk()\n" * 257, "chunk").reason == "too many operations"
    assert parse("#" * 131_072 + "\nkeep_chunk()", "chunk").reason == "too many bytes"
    caps = Caps(program_bytes=22, operations=1)
    assert parse('normalize("1234567890")', "chunk", caps=caps).reason == "too many bytes"
    assert parse('normalize("123456789")', "chunk", caps=caps).status == "ok"
    assert parse('normalize("12345678é")', "chunk", caps=caps).reason == "too many bytes"  # bytes, not characters
    assert parse("keep_chunk();untouch_doc()", "chunk", caps=Caps(operations=1)).reason == "too many operations"
    assert parse("remove_lines(0, 1000)", "chunk", caps=Caps(integer_digits=3)).operations == (R(0, 10**18),)
    assert parse("remove_lines(0, 5000)", "chunk", caps=Caps(integer_digits=3)).operations == (R(0, 10**18),)
    assert parse(f"remove_lines(0, {'1' * 5000})", "chunk", caps=Caps(integer_digits=10**6)).status == "ok"


@pytest.mark.timeout(60)  # quadratic time would be minutes
@pytest.mark.parametrize(
    "text",
    [
        "(" * 10**6,
        "remove_lines(" * 10**5,
        "remove_lines(" + "[" * 10**6,
        "keep_chunk()" + " " * 10**6,
        'normalize("' + "\\" * 10**6,
        "#" * 10**6,
        "a" * 10**6,
        "\ud800" * 10**6,
        "\0" * 10**6,
    ],
)
@pytest.mark.parametrize("caps", [Caps(), Caps(program_bytes=10**8, operations=10**8)])
def test_megabytes_of_anything_end_soon(text, caps):
    for truncated in (False, True):
        program = parse(text, "chunk", truncated=truncated, caps=caps)
        assert not any(isinstance(operation, RemoveLines) for operation in program.operations)


@pytest.mark.timeout(60)  # quadratic time would be minutes
@pytest.mark.parametrize(
    "make",
    [
        lambda n: "remove_lines(0" + " " * n + "x",
        lambda n: "remove_lines(" + "a" * n + " " * n + "x",
        lambda n: "remove_lines(" + "#\n" * n + "x",
        lambda n: "remove_lines(" + "# # " * n,
        lambda n: "normalize('" + "\\'" * n,
        lambda n: 'normalize("' + "a" * n + "\n",
        lambda n: "keep_chunk()\n" * (n // 13) + "x",
        lambda n: "```" + "a" * n,
        lambda n: "`" * n,
        lambda n: "remove_lines(0, " + "9" * n + ")",
    ],
)
def test_time_is_linear_in_the_program(make):
    """A quarter of a megabyte of what makes a careless pattern backtrack; quadratic time would be minutes."""
    caps = Caps(program_bytes=10**9, operations=10**9)
    for truncated in (False, True):
        parse(make(2**18), "chunk", truncated=truncated, caps=caps)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("# note\n```python\nkeep_chunk()\n```", "ok"),
        ("```\nkeep_chunk();```", "ok"),
        ("```\nkeep_chunk()```", "malformed"),
        ("``` python\nkeep_chunk()\n```", "malformed"),
        ("````\nkeep_chunk()\n````", "malformed"),
        ("~~~\nkeep_chunk()\n~~~", "malformed"),
    ],
)
def test_what_counts_as_a_code_fence(text, status):
    assert parse(text, "chunk").status == status


def test_a_doc_program_cut_off_after_its_verdict_stands():
    program = parse("keep_doc()\ndrop_", "doc", truncated=True)
    assert (program.status, program.operations) == ("truncated", (KeepDoc(),))
