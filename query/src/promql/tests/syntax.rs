//! Parsing, printing and the errors of both.

use proptest::prelude::*;

use crate::promql::{format_query, parse, parse_tree, print};

fn check_print(text: &str, printed: &str) {
    let ast = parse(text).expect(text);
    assert_eq!(print(&ast), printed, "{text}");
    let again = parse(printed).expect(printed);
    assert_eq!(print(&again), printed, "prints itself");
}

fn check_error(text: &str, message: &str) {
    let error = parse(text).expect_err(text);
    assert_eq!(error.message, message, "{text}");
}

#[test]
fn expressions_print_in_one_spelling() {
    check_print("SUM BY(a)(x)", "sum by (a) (x)");
    check_print("-1 ^ 2", "-1 ^ 2");
    check_print("a*b+c", "a * b + c");
    check_print("x offset 5m @ 10", "x @ 10.000 offset 5m");
    check_print("x[300] anchored", "x[5m] anchored");
    check_print("rate(x[max_of(step(),1m)])", "rate(x[max_of(step(), 1m)])");
    check_print("x[5m+1s:step()*2] offset -(2*3)", "x[5m + 1s:step() * 2] offset -(2 * 3)");
    check_print("a / ignoring(b) group_left c", "a / ignoring (b) group_left () c");
    check_print("a + fill_left(1) fill_right(2) b", "a + fill_left (1) fill_right (2) b");
    check_print("a + fill(NaN) b", "a + fill (NaN) b");
    check_print("{\"a.b\",\"c d\"='x'}", "{\"c d\"=\"x\",__name__=\"a.b\"}");
    check_print("h >/ 2", "h >/ 2");
    check_print("offset offset 5m", "offset offset 5m");
    check_print("sum", "sum");
    check_print("x[1m0s]", "x[1m]");
    check_print("info(x, {a=~\".*\"})", "info(x, {a=~\".*\"})");
}

#[test]
fn errors_say_where_and_what() {
    check_error("sum(", "1:5: parse error: unclosed left parenthesis");
    check_error("\n x{", "2:4: parse error: unexpected end of input inside braces");
    check_error("foo(x)", "1:1: parse error: unknown function with name \"foo\"");
    check_error("x[0]", "1:3: parse error: duration must be greater than 0");
    check_error("x offset 5m offset 5m", "1:1: parse error: offset may not be set multiple times");
    check_error("x + on(a) 1", "1:1: parse error: vector matching only allowed between instant vectors");
}

#[test]
fn long_chains_work_and_deep_nesting_is_refused() {
    let chain = vec!["1"; 20_000].join("+");
    let ast = parse(&chain).expect("a chain is a loop");
    assert_eq!(print(&ast).len(), chain.len() + 2 * 19_999);
    assert!(format_query(&chain).is_ok());
    assert!(parse_tree(&chain).is_err());
    for open in ["(", "-", "abs(", "sum(", "1^", "x[(", "x offset -", "x offset ("] {
        let text = open.repeat(100_000);
        assert!(parse(&text).is_err(), "{open}");
    }
    let deep = format!("{}1{}", "(".repeat(150), ")".repeat(150));
    assert!(parse(&deep).is_ok());
    let tree = parse_tree(&deep).expect("fits");
    assert_eq!(tree["type"], "parenExpr");
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,60}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_sequence_of_words_panics(words in proptest::collection::vec(prop_oneof![
        Just("sum"), Just("("), Just(")"), Just("by"), Just("x"), Just("["), Just("]"), Just("5m"), Just(":"),
        Just("{"), Just("}"), Just("a"), Just("="), Just("\"v\""), Just(","), Just("offset"), Just("@"), Just("1"),
        Just("-"), Just("^"), Just("on"), Just("group_left"), Just("fill"), Just("start"), Just("rate"), Just("and"),
        Just("bool"), Just("=="), Just("smoothed"), Just("step"), Just("min_of"),
    ], 0..24)) {
        let text = words.join(" ");
        if let Ok(ast) = parse(&text) {
            let printed = print(&ast);
            let again = parse(&printed).expect("what is printed parses");
            prop_assert_eq!(print(&again), printed);
        }
    }
}
