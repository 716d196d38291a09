"""L-Eval's metrics on values worked out by hand, and on the official code's where they are."""

import pytest

from tasks.official.leval import (
    exact_match,
    f1,
    geometric_mean,
    pairs,
    read_choice,
    read_choice_reference,
    read_code,
    read_code_reference,
    read_judgement,
    read_judgement_reference,
    read_number,
    rouge,
)
from tests.tasks.official.vectors import needs_vectors, vectors


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("B", "B", 1.0),
        ("B.", "B", 1.0),
        ("B", "BD", 0.25),
        ("BC", "BD", 0.0),
        ("", "BD", 0.25),
        ("", "", 1.0),
        ("B", "A B", 0.0),  # with a blank the reference is a text: `ab` does not occur in `b`
        ("42.0", "42", 1.0),
        ("nan", "nan", 0.0),
        ("it is 13", "3", 1.0),
        ("The  Sun!", "the sun", 1.0),
        ("the sun", "The Sun!", 0.0),
        ("\n", "sun", 0.0),
    ],
)
def test_exact_match_is_three_rules(prediction, reference, score):
    assert exact_match(prediction, reference) == score


@pytest.mark.parametrize(
    ("prediction", "one", "several"),
    [
        ("", "None", "None"),
        ("\n", "None", "None"),
        ("BC", "BC", "BC"),
        ("CA", "C", "AC"),
        ("Because of D.", "B", "BD"),
        ("Answer: A, C, and D", "A", "A"),
        ("(C) and D) or x", "C", "CD"),
        ("x. Question D.", "D", "A"),
        ("no DCC! here", "D", "DCC"),
        ("ok E.", "A", "A"),
        ("Ｂ", "A", "A"),  # a full-width letter is none
    ],
)
def test_letters_of_a_choice(prediction, one, several):
    assert read_choice(prediction, several=False) == one
    assert read_choice(prediction, several=True) == several


def test_letters_of_a_reference():
    assert read_choice_reference("(B) since A") == "B"
    assert read_choice_reference("none") == "A"
    with pytest.raises(ValueError, match="blank 'gt'"):
        read_choice_reference(" ")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is $1,234.50.", "1234"),
        ("so 12 + 30 = 42 apples\n\nQuestion 7", "42"),
        ("The answer is -5", "5"),
        ("The answer is 3/4", "34"),
        ("The answer is .5", ""),
        ("The answer is many, 5", ""),
        ("", ""),
    ],
)
def test_digits_of_an_answer(text, number):
    assert read_number(text) == number


def test_words_of_a_program_s_output():
    assert read_code_reference("[ [1.0,  'a'] ]") == "[[1 a]]"
    assert read_code("this is one two three four five", "5") == "two three four five"
    assert read_code("is the final output 7 8 9 10 11", "5") == " 7 8 9"
    assert read_code("this", "5") == "th"


def test_halves_of_a_judgement():
    assert read_judgement_reference("True [fact: False]") == ("true", "false")
    assert read_judgement("Untrue! [fact: who knows]") == ("true", "<error>")
    assert read_judgement("it is falsetrue [fact: False") == ("true", "<error>")  # last one off
    with pytest.raises(ValueError, match=r"'True' has no '\[fact:'"):
        read_judgement("True")


def test_f1_and_rouge_are_of_words():
    assert f1("The cat", "cat") == 1
    assert f1("", "") == 0
    scores = rouge("the cat sat", "the cat ran off")
    assert scores["rouge1"] == pytest.approx(100 * 2 * 2 / 7)
    assert scores["rouge2"] == pytest.approx(100 * 2 * 1 / 5)
    assert rouge("北京", "北京") == {"rouge1": 0, "rouge2": 0, "rougeL": 0}


def test_the_geometric_mean_is_taken_of_means():
    zero = {"rouge1": 20.0, "rouge2": 0.0, "rougeL": 10.0}
    other = {"rouge1": 30.0, "rouge2": 20.0, "rougeL": 20.0}
    assert geometric_mean([zero, other]) == pytest.approx((25 * 10 * 15) ** (1 / 3))


def test_a_task_decides_how_texts_are_read():
    assert pairs("coursera", "AC", "CA x") == [("AC", "CA")]
    assert pairs("quality", "(C) and D.", "(C) it") == [("C", "C")]
    assert pairs("gsm100", "The answer is 7.", "7") == [("7", "7")]
    assert pairs("codeU", "It is 3.0", "3.0") == [("It 3", "3")]
    assert pairs("sci_fi", "True [fact: no]", "True [fact: False]") == [
        ("true", "true"),
        ("<error>", "false"),
    ]
    assert pairs("news_summ", " as it is ", "x") == [(" as it is ", "x")]


TASKS = {"math": "gsm100", "code": "codeU", "judge": "sci_fi"}


@needs_vectors
def test_every_official_vector_is_reproduced():
    rows = list(vectors("leval_metrics"))
    assert len(rows) == 453
    for row in rows:
        said, meant, family = row["prediction"], row["gt"], row["family"]
        if family == "exact_match":
            assert exact_match(said, meant) == row["exact_match"]["value"], row["id"]
        elif family == "f1+rouge":
            assert 100 * f1(said, meant) == pytest.approx(row["f1"]["value"], abs=1e-9), row["id"]
            assert rouge(said, meant) == pytest.approx(row["rouge"], abs=1e-9), row["id"]
        elif "raises" in row["processed"]:
            with pytest.raises(ValueError, match="fact"):
                pairs(TASKS[family], said, meant)
        else:
            found = pairs(row.get("task") or TASKS[family], said, meant)
            read, expected = zip(*found, strict=True)
            as_list = family == "judge"
            assert (list(read) if as_list else read[0]) == row["processed"]["value"], row["id"]
            assert (list(expected) if as_list else expected[0]) == row["processed_gt"]["value"]
            if not as_list:
                assert exact_match(*found[0]) == row["exact_match"]["value"], row["id"]
