//! What templates print; expected values are those of Go's text/template.

use proptest::prelude::*;

use super::{Scope, Template, time};
use crate::logql::eval::labels::{LabelSet, Needs};

/// 2026-01-05T00:11:42.914500724Z
const TS: i64 = 1_767_571_902_914_500_724;

const LINE: &str = r#"{"user":{"id":"u","geo":{"country":"US"}},"tags":["blue","x"],"n":1.5}"#;

fn render(template: &str) -> Result<String, String> {
    let pairs: Vec<(String, String)> = [
        ("method", "PUT"),
        ("path", "/api/v1/orders/152"),
        ("status", "200"),
        ("duration_ms", "83.126"),
        ("size", "18KiB"),
        ("empty", ""),
        ("accents", "größe"),
    ]
    .iter()
    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
    .collect();
    let labels = LabelSet::new(&pairs, &Needs::All);
    Template::new(template)?.render(&Scope { labels: &labels, line: LINE, ts_ns: TS })
}

fn check(cases: &[(&str, &str)]) {
    for (template, expected) in cases {
        assert_eq!(render(template).as_deref(), Ok(*expected), "{template}");
    }
}

#[test]
fn syntax() {
    check(&[
        ("const", "const"),
        ("", ""),
        ("[{{.nosuch}}]", "[]"),
        ("{{ .method }}", "PUT"),
        ("{{if eq .method \"GET\"}}g{{else if eq .method \"PUT\"}}p{{else}}o{{end}}", "p"),
        ("{{if and (eq .method \"GET\") (ne .status \"200\")}}x{{else}}y{{end}}", "y"),
        ("{{with .method}}m={{.}}{{end}}", "m=PUT"),
        ("{{with .empty}}a{{else}}b{{end}}", "b"),
        ("{{range $k, $v := (fromJson __line__).user}}{{$k}};{{end}}", "geo;id;"),
        ("{{range $i, $t := (fromJson __line__).tags}}{{$i}}={{$t}},{{end}}", "0=blue,1=x,"),
        ("{{range (fromJson __line__).tags}}{{.}}{{break}}{{end}}", "blue"),
        ("{{(fromJson __line__).user.geo.country}}", "US"),
        ("{{index (fromJson __line__).tags 0}}", "blue"),
        ("{{(fromJson __line__).n}} {{(fromJson __line__).tags}}", "1.5 [blue x]"),
        ("{{$x := .status}}{{$x}}{{$x = \"1\"}}{{$x}}", "2001"),
        ("{{.method | printf \"%s!\" | repeat 2}}", "PUT!PUT!"),
        ("{{substr 0 3 .path}}{{- \"x\" -}} y", "/apxy"),
        ("a  {{- /* c */ -}}  b", "ab"),
        ("{{\"\\u00e9\\n\"}}{{`raw\\n`}}", "é\nraw\\n"),
        ("{{$.method}}", "PUT"),
    ]);
    for bad in [
        "{{",
        "{{.a | nosuchfn}}",
        "{{if}}x{{end}}",
        "{{if .a}}",
        "{{end}}",
        "{{else}}",
        "{{.a}",
        "{{(.a}}",
        "{{.a)}}",
        "{{template \"x\"}}",
        "{{\"a}}",
        "{{1.2.3}}",
        "{{.a | }}",
        "{{| .a}}",
        "{{.a | \"b\"}}",
        "{{/* a }}",
    ] {
        assert!(Template::new(bad).is_err(), "{bad}");
    }
    assert!(Template::new(&"{{(".repeat(10_000)).is_err());
    assert!(Template::new(&"{{if .a}}".repeat(10_000)).is_err());
    assert!(Template::new(&format!("{{{{{}", "(".repeat(10_000))).is_err());
}

#[test]
fn strings() {
    check(&[
        ("{{.method | ToLower}}", "put"),
        ("{{.method | lower | upper | title}}", "PUT"),
        ("{{title \"hello wörld\"}}", "Hello Wörld"),
        ("{{Replace .path \"/\" \"|\" -1}}", "|api|v1|orders|152"),
        ("{{Replace .path \"/\" \"|\" 1}}", "|api/v1/orders/152"),
        ("{{replace \"/\" \"\" .path}}", "apiv1orders152"),
        ("{{Trim .path \"/\"}}", "api/v1/orders/152"),
        ("{{TrimLeft .path \"/ap\"}}", "i/v1/orders/152"),
        ("{{TrimRight .path \"251\"}}", "/api/v1/orders/"),
        ("{{trimPrefix \"/api\" .path}}", "/v1/orders/152"),
        ("{{TrimSuffix .path \"152\"}}", "/api/v1/orders/"),
        ("{{TrimSpace \"  x  \"}}|{{trim \" x\"}}|{{trimAll \"/\" \"/a/\"}}", "x|x|a"),
        ("{{trunc 4 .path}} {{trunc -5 .path}} {{trunc 99 .method}}", "/api s/152 PUT"),
        ("{{contains \"api\" .path}} {{hasPrefix \"/api\" .path}} {{hasSuffix \"x\" .path}}", "true true false"),
        ("{{indent 2 \"a\\nb\"}}{{nindent 1 .method}}", "  a\n  b\n PUT"),
        (
            "{{alignLeft 5 .method}}|{{alignRight 5 .method}}|{{alignLeft 2 .method}}|{{alignRight 2 .method}}",
            "PUT  |  PUT|PU|UT",
        ),
        ("{{default \"d\" .nosuch}}{{default \"d\" .empty}}{{.method | default \"d\"}}", "ddPUT"),
        ("{{regexReplaceAll \"([0-9])(.)\" .path \"$2\"}}", "/api/v/orders/52"),
        ("{{regexReplaceAllLiteral \"/\" .path \"$1\"}}", "$1api$1v1$1orders$1152"),
        ("{{count \"/\" .path}}", "4"),
        ("{{urlencode \"a b&c/d\"}} {{urldecode \"a+b%26c\"}}", "a+b%26c%2Fd a b&c"),
        ("{{b64enc .method}} {{b64dec \"aGVsbG8=\"}}", "UFVU hello"),
        ("{{b64dec \"a!\"}}", "illegal base64 data at input byte 1"),
        ("{{html \"<b>'\"}} {{js \"'\"}} {{urlquery \"a b\"}}", "&lt;b&gt;&#39; \\' a+b"),
        ("{{len .path}} {{len .accents}}", "18 7"),
        ("{{slice .path 1 4}}", "api"),
        ("{{print 1 2 \"a\" 3}}|{{println 1 \"a\"}}", "1 2a3|1 a\n"),
    ]);
    for bad in [
        "{{ToLower 5}}",
        "{{repeat 100000000 .path}}",
        "{{indent 100000000 .path}}",
        "{{regexReplaceAll \"(\" .path \"x\"}}",
        "{{urldecode \"%zz\"}}",
        "{{substr 50 60 .path}}",
        "{{.method.x}}",
        "{{index .method 99}}",
        "{{call .method}}",
        "{{.method \"x\"}}",
    ] {
        assert!(render(bad).is_err(), "{bad}");
    }
}

#[test]
fn numbers() {
    check(&[
        ("{{int .status}} {{int \"1.5\"}} {{int \"2.00\"}} {{float64 \"x\"}}", "200 0 2 0"),
        ("{{add 1 .status 3}} {{sub .status 1}} {{mul 2 3}} {{mul .status 2}}", "204 199 6 400"),
        ("{{div .status 7}} {{mod .status 7}} {{div -7 2}}", "28 4 -3"),
        ("{{addf 1.5 .duration_ms}} {{addf 0.1 0.2}} {{subf 0.3 0.1}} {{mulf 0.1 3}}", "84.626 0.3 0.2 0.3"),
        ("{{divf 7 2}} {{divf 1 3}}", "3.5 0.3333333333333333"),
        ("{{max 1 .status 3}} {{min 5 2}} {{maxf 1.5 .duration_ms}} {{minf 1.5 2}}", "200 2 83.126 1.5"),
        ("{{ceil 1.2}} {{floor .duration_ms}} {{round 1.555 2}} {{round 2.5 0}} {{round -1.2 0}}", "2 83 1.56 3 -2"),
        (
            "{{bytes .size}} {{bytes \"1.5KB\"}} {{duration_seconds \"1m30s\"}} {{duration \"83126us\"}}",
            "18432 1500 90 0.083126",
        ),
        ("{{if gt (int .status) 199}}{{if le 1.5 2.5}}a{{end}}{{end}}", "a"),
        ("{{1e21}} {{1e20}} {{0.00001}} {{float64 \"1e6\"}}", "1e+21 1e+20 1e-05 1e+06"),
        ("{{0x1f}} {{'a'}} {{-3}}", "31 97 -3"),
        (
            "{{printf \"%05d|%-5s|%.2f|%x|%q|%v|%t|%%\" 42 \"ab\" 1.239 255 \"q\" nil true}}",
            "00042|ab   |1.24|ff|\"q\"|<nil>|true|%",
        ),
        ("{{printf \"%d %s\" \"x\"}}", "%!d(string=x) %!s(MISSING)"),
    ]);
    for bad in [
        "{{div 1 0}}",
        "{{mod 1 0}}",
        "{{divf 1 0}}",
        "{{duration .method}}",
        "{{bytes .method}}",
        "{{lt 1 \"a\"}}",
        "{{eq 1 \"1\"}}",
    ] {
        assert!(render(bad).is_err(), "{bad}");
    }
}

#[test]
fn times() {
    check(&[
        ("{{__timestamp__}}", "2026-01-05 00:11:42.914500724 +0000 UTC"),
        ("{{__timestamp__ | date \"15:04:05\"}}", "00:11:42"),
        (
            "{{date \"Mon Jan _2 3:04PM 06 MST -07:00 Z07:00 .000 .999999999\" __timestamp__}}",
            "Mon Jan  5 12:11AM 26 UTC +00:00 Z .914 .914500724",
        ),
        ("{{unixEpoch __timestamp__}} {{unixEpochMillis __timestamp__}}", "1767571902 1767571902914"),
        ("{{unixEpochNanos __timestamp__}}", "1767571902914500724"),
        ("{{toDateInZone \"2006-01-02\" \"UTC\" \"2026-02-03\"}}", "2026-02-03 00:00:00 +0000 UTC"),
        ("{{toDate \"2006-01-02\" \"nope\"}}", "0001-01-01 00:00:00 +0000 UTC"),
        (
            "{{unixEpoch (unixToTime \"1767571902\")}} {{unixEpoch (unixToTime \"1767571902914\")}}",
            "1767571902 1767571902",
        ),
        ("{{unixToTime \"19000\"}}", "2022-01-08 00:00:00 +0000 UTC"),
    ]);
    assert!(render("{{unixToTime \"123\"}}").is_err());
    for (text, layout) in [
        ("2026-01-05T00:11:42.914500724Z", "2006-01-02T15:04:05Z07:00"),
        ("2026-01-05T01:11:42.914500724+01:00", "2006-01-02T15:04:05.999999999Z07:00"),
        ("5 Jan 26 12:11:42.914500724 AM", "2 Jan 06 3:04:05 PM"),
    ] {
        assert_eq!(time::parse(text, layout), Some(i128::from(TS)), "{text}");
    }
}

#[test]
fn needs_are_the_named_labels() {
    let needs = |template: &str| {
        let mut needs = Needs::Names(std::collections::BTreeSet::new());
        Template::new(template).unwrap().add_needs(&mut needs);
        needs
    };
    let Needs::Names(names) = needs("{{if .a}}{{.b | printf \"%s\" | lower}}{{end}}{{(print .c)}}{{$.d}}") else {
        panic!("names")
    };
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert_eq!(needs("{{range $k, $v := .}}{{$k}}{{end}}"), Needs::All);
}

proptest! {
    #[test]
    fn no_template_panics(text in "[ -~é]{0,40}", inside in "[a-z0-9.|()$\"`:= ,'-]{0,30}") {
        let _ = render(&text);
        let _ = render(&format!("{{{{{inside}}}}}"));
        let _ = render(&format!("{{{{printf \"{inside}%\" .path 5}}}}"));
    }

    #[test]
    fn no_layout_panics(layout in "[ -~é]{0,30}", text in "[ -~é]{0,30}") {
        time::format(i128::from(TS), &layout);
        time::parse(&text, &layout);
        time::parse(&text, "2006-01-02T15:04:05.000Z07:00");
    }
}
