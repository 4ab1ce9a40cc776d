//! The corpus of query texts, print–parse round trips, and texts that must not panic.

use std::path::PathBuf;

use proptest::prelude::*;

use super::super::ast::*;
use super::super::check::check;
use super::*;

/// The folder of recorded cases; `None`, said aloud, where it is not there and need not be.
fn corpus(file: &str) -> Option<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance/traces").join(file);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("{}: {error}", path.display()),
        Err(_) => {
            eprintln!("skipped: {} is not here", path.display());
            None
        }
    }
}

fn refusal(text: &str) -> Option<String> {
    parse(text).and_then(|query| check(&query)).err().map(|error| error.message)
}

fn check_round_trip(text: &str) {
    let Ok(query) = parse(text) else { return };
    let printed = query.to_string();
    let again = parse(&printed).unwrap_or_else(|error| panic!("{text}: printed as {printed}: {error}"));
    assert_eq!(query, again, "{text} printed as {printed}");
}

#[test]
fn recorded_texts_are_accepted_and_refused_as_recorded() {
    let Some(corpus) = corpus("corpus-parse.jsonl") else { return };
    let mut wrong = Vec::new();
    for line in corpus.lines() {
        let case: serde_json::Value = serde_json::from_str(line).expect("a case per line");
        let text = case["request"]["params"]["q"].as_str().expect("a query");
        let id = case["id"].as_str().expect("an id");
        check_round_trip(text);
        let refusal = refusal(text);
        if refusal.is_some() != (case["expect"]["status"] == 400) {
            wrong.push(format!("{id}: {text}: {refusal:?}"));
        }
        let parse_error = id.contains("parse_fails");
        if let Some(message) = &refusal
            && parse_error
            && !message.starts_with("parse error at line ")
        {
            wrong.push(format!("{id}: {text}: no position: {message}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn places_are_those_of_the_token_that_does_not_fit() {
    let cases = [
        ("{ .a = }", "parse error at line 1, col 8: syntax error: unexpected }"),
        ("{ .a = 1", "parse error at line 1, col 9: syntax error: unexpected $end, expecting }"),
        ("{ foo = 1 }", "parse error at line 1, col 3: unknown identifier: foo"),
        ("{ } | count()", "parse error at line 1, col 14: syntax error: unexpected $end"),
        ("{ true } + { true }", "parse error at line 1, col 10: syntax error: unexpected +"),
        ("{ } | rate() by()", "parse error at line 1, col 17: syntax error: unexpected )"),
        ("{ trace.foo = 1 }", "parse error at line 1, col 3: unknown identifier: trace"),
        ("{ status > ok }", "illegal operation for the given types: status > ok"),
        ("{ 1 = \"x\" }", "binary operations must operate on the same type: 1 = `x`"),
        ("{ .a =~ \"[\" }", "invalid regex: `[`"),
    ];
    for (text, expected) in cases {
        assert_eq!(refusal(text).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn precedence_is_that_of_the_language() {
    let cases = [
        ("{ .a = 1 && .b = 2 || .c = 3 }", "{ ((.a = 1) && (.b = 2)) || (.c = 3) }"),
        ("{ .a = 1 || .b = 2 && .c = 3 }", "{ ((.a = 1) || (.b = 2)) && (.c = 3) }"),
        ("{ .a + 2 * .b ^ 2 ^ 3 > 1 }", "{ (.a + (2 * (.b ^ (2 ^ 3)))) > 1 }"),
        ("{ !.a && .b }", "{ (!.a) && .b }"),
        ("{ -.a > 40 }", "{ (-.a) > 40 }"),
        ("{ .a > 3 = true }", "{ (.a > 3) = true }"),
        ("{.a=1} > {.b=1} > {.c=1}", "({ .a = 1 } > { .b = 1 }) > { .c = 1 }"),
        ("{.a=1} && {.b=1} > {.c=1}", "{ .a = 1 } && ({ .b = 1 } > { .c = 1 })"),
        ("3 * 2 - ({} | rate())", "6.0 - ({ } | rate())"),
        ("({} | rate()) / 3 * 2 > 1 | topk(2)", "((({ } | rate()) / 3.0) * 2.0) > 1 | topk(2)"),
    ];
    for (text, printed) in cases {
        assert_eq!(parse(text).map(|query| query.to_string()).expect(text), printed, "{text}");
        check_round_trip(text);
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = format!("{{ {}true{} }}", "(".repeat(50_000), ")".repeat(50_000));
    assert!(refusal(&nested).expect("refused").contains("nest deeper"));
    let chain = format!("{{ {}true }}", "true && ".repeat(15_000));
    assert!(refusal(&chain).expect("refused").contains("nests deeper"));
    assert!(refusal(&format!("{{ {}true }}", "!".repeat(50_000))).is_some());
    assert!(refusal(&format!("{{ {}1 = 1 }}", "1 ^ ".repeat(20_000))).is_some());
    assert!(refusal(&"{} > ".repeat(20_000)).is_some());
    assert!(refusal(&" ".repeat(QUERY_BYTES_MAX + 1)).expect("refused").contains("maximum size of 131072 bytes"));
    // As deep as allowed, every walk over the tree must fit the stack of a test's thread.
    let deep = format!("{{ {}true }}", "true && ".repeat(DEPTH_MAX - 3));
    assert_eq!(refusal(&deep), None);
    check_round_trip(&format!("{{ {}.a{} = 1 }}", "(1 + ".repeat(90), ")".repeat(90)));
    // Found by fuzzing: what is printed has a parenthesis for each of these and nests twice as deep.
    let signs = parse(&format!("{{ {}0 + 7.0 }}", "!".repeat(61))).expect("not too deep");
    let printed = parse(&signs.to_string()).expect_err("too deep");
    assert!(printed.message.contains(TOO_DEEP), "{}", printed.message);
}

fn any_reference() -> impl Strategy<Value = Reference> {
    let scopes = prop_oneof![
        Just(AttributeScope::Any),
        Just(AttributeScope::Span),
        Just(AttributeScope::Resource),
        Just(AttributeScope::Event),
        Just(AttributeScope::Link),
        Just(AttributeScope::Instrumentation),
    ];
    let intrinsics = (0..Intrinsic::ALL.len()).prop_map(|i| Reference::Intrinsic(Intrinsic::ALL[i].2));
    let name = prop_oneof!["[a-z.]{1,6}", "\\PC{1,6}", "[0-9\"\\\\ \t\n]{1,4}"];
    let attributes = (scopes, any::<bool>(), name)
        .prop_map(|(scope, parent, name)| Reference::Attribute(Attribute { scope, parent, name }));
    prop_oneof![intrinsics, attributes]
}

fn any_static() -> impl Strategy<Value = Static> {
    prop_oneof![
        Just(Static::Nil),
        any::<bool>().prop_map(Static::Bool),
        any::<i64>().prop_map(Static::Int),
        (-1e300f64..1e300).prop_map(Static::Float),
        (-1_000_000_000_000_000i64..1_000_000_000_000_000).prop_map(Static::Duration),
        "[^\r]{0,8}".prop_map(Static::String),
        (0..3i32).prop_map(Static::Status),
        (0..6i32).prop_map(Static::Kind),
    ]
}

fn any_field() -> impl Strategy<Value = Field> {
    let of = |kind| Field { kind, span: SourceSpan::default() };
    let leaf = prop_oneof![
        any_static().prop_map(move |literal| of(FieldKind::Static(literal))),
        any_reference().prop_map(move |reference| of(FieldKind::Reference(reference))),
    ];
    leaf.prop_recursive(4, 24, 2, move |inner| {
        prop_oneof![
            inner.clone().prop_map(move |inner| of(FieldKind::Unary(UnaryOp::Not, Box::new(inner)))),
            (0..BinaryOp::ALL.len(), inner.clone(), inner).prop_map(move |(op, left, right)| {
                of(FieldKind::Binary(BinaryOp::ALL[op].1, Box::new(left), Box::new(right)))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_printed_parses_back(field in any_field(), select in any_reference()) {
        let stages = vec![
            Stage::Spansets(Spansets::Filter(Some(field.clone()))),
            Stage::By(field),
            Stage::Select(vec![select]),
        ];
        let query = Query { root: Root::Spansets(Pipeline { stages }), hints: vec![] };
        let printed = query.to_string();
        prop_assert_eq!(parse(&printed).map_err(|e| format!("{printed}: {e}")), Ok(query));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,60}") {
        let _ = refusal(&text);
    }

    #[test]
    fn no_soup_of_tokens_panics(words in proptest::collection::vec(prop_oneof![
        Just("{"), Just("}"), Just("("), Just(")"), Just("|"), Just("&&"), Just(">"), Just(">>"), Just("!~"), Just("="),
        Just("-"), Just("1"), Just("1.5"), Just("2s"), Just(".a"), Just("span.x"), Just("name"), Just("nil"), Just("by"),
        Just("count"), Just("avg"), Just("rate"), Just("topk"), Just("compare"), Just("with"), Just(","), Just("\"x\""),
    ], 0..24)) {
        let text = words.join(" ");
        check_round_trip(&text);
        let _ = refusal(&text);
    }
}
