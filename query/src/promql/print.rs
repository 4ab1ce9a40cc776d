//! Syntax tree → text that parses back to the same tree: on one line, or broken over an indented tree.
//!
//! Owns: the canonical spelling. Both forms walk with a list of open work instead of recursion, so that chains of any
//! length print.

use storage::model::labels::METRIC_NAME;

use super::ast::{
    Aggregate, Ast, At, Binary, BinaryOp, Cardinality, Duration, DurationExpr, DurationKind, DurationOp, Expr, Extent,
    NodeId, Selector, Shift, Type,
};
use super::lexer::quote;
use super::number::format_literal;
use super::parser::format_duration;

/// Longer nodes are broken over several lines by [`pretty`].
const LINE_CHARS_MAX: usize = 100;

enum Part {
    Node(NodeId),
    Word(String),
    Still(&'static str),
}

/// The expression on one line.
pub fn print(ast: &Ast) -> String {
    print_node(ast, ast.root)
}

/// One node on one line.
pub(super) fn print_node(ast: &Ast, id: NodeId) -> String {
    let mut out = String::new();
    let mut open = vec![Part::Node(id)];
    while let Some(part) = open.pop() {
        match part {
            Part::Word(word) => out.push_str(&word),
            Part::Still(word) => out.push_str(word),
            Part::Node(id) => {
                let mut parts = Vec::new();
                node_parts(ast, id, &mut parts);
                open.extend(parts.into_iter().rev());
            }
        }
    }
    out
}

fn node_parts(ast: &Ast, id: NodeId, out: &mut Vec<Part>) {
    match ast.expr(id) {
        Expr::Number { value, duration } => out.push(Part::Word(number(*value, *duration))),
        Expr::Text(text) => out.push(Part::Word(quote(text))),
        Expr::Vector(selector) => out.push(Part::Word(vector(selector))),
        Expr::Matrix { selector, range } => out.push(Part::Word(matrix(selector, range))),
        Expr::Subquery { expr, range, step, shift } => {
            out.push(Part::Node(*expr));
            out.push(Part::Word(subquery_tail(range, step.as_ref(), shift)));
        }
        Expr::Unary { negative, expr } => {
            out.push(Part::Still(if *negative { "-" } else { "+" }));
            out.push(Part::Node(*expr));
        }
        Expr::Paren(expr) => out.extend([Part::Still("("), Part::Node(*expr), Part::Still(")")]),
        Expr::Binary(binary) => out.extend([
            match ast.expr(binary.lhs) {
                // A sign in front would take the whole power as its operand.
                Expr::Number { value: f64::INFINITY, .. } if binary.op == BinaryOp::Pow => Part::Still("Inf"),
                _ => Part::Node(binary.lhs),
            },
            Part::Word(format!(" {} ", operator(ast, binary))),
            Part::Node(binary.rhs),
        ]),
        Expr::Aggregate(aggregate) => {
            out.push(Part::Word(aggregate_head(aggregate)));
            out.push(Part::Still("("));
            if let Some(param) = aggregate.param {
                out.extend([Part::Node(param), Part::Still(", ")]);
            }
            out.extend([Part::Node(aggregate.expr), Part::Still(")")]);
        }
        Expr::Call { function, args } => {
            out.extend([Part::Still(function.name), Part::Still("(")]);
            for (i, arg) in args.iter().enumerate() {
                if i > 0 {
                    out.push(Part::Still(", "));
                }
                out.push(Part::Node(*arg));
            }
            out.push(Part::Still(")"));
        }
    }
}

fn number(value: f64, duration: bool) -> String {
    if duration {
        return format_duration((value * 1000.0).round() as i64);
    }
    format_literal(value)
}

fn vector(selector: &Selector) -> String {
    let mut out = series(selector);
    if selector.extent == Extent::Smoothed {
        out.push_str(" smoothed");
    }
    out.push_str(&shift(&selector.shift));
    out
}

fn matrix(selector: &Selector, range: &Duration) -> String {
    let mut out = format!("{}[{}]", series(selector), duration(range));
    out.push_str(match selector.extent {
        Extent::Plain => "",
        Extent::Anchored => " anchored",
        Extent::Smoothed => " smoothed",
    });
    out.push_str(&shift(&selector.shift));
    out
}

fn series(selector: &Selector) -> String {
    let mut out = selector.name.clone().unwrap_or_default();
    // The matcher of a name in front of the braces is not repeated inside.
    let hidden = |name: &str| selector.name.is_some() && name == METRIC_NAME;
    let shown: Vec<String> = selector
        .matchers
        .iter()
        .filter(|matcher| !hidden(&matcher.name))
        .map(|matcher| format!("{}{}{}", label_name(&matcher.name), matcher.op, quote(&matcher.value)))
        .collect();
    if !shown.is_empty() || selector.name.is_none() {
        out.push_str(&format!("{{{}}}", shown.join(",")));
    }
    out
}

/// A label's name, in quotes if it is not a plain one.
fn label_name(name: &str) -> String {
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|c| c == '_' || c.is_ascii_alphabetic())
        && chars.all(|c| c == '_' || c.is_ascii_alphanumeric());
    if plain { name.to_owned() } else { quote(name) }
}

fn label_names(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| label_name(name)).collect();
    names.join(", ")
}

fn shift(shift: &Shift) -> String {
    let mut out = String::new();
    match shift.at {
        Some(At::Time(ms)) => {
            let sign = if ms < 0 { "-" } else { "" };
            let ms = ms.unsigned_abs();
            out.push_str(&format!(" @ {sign}{}.{:03}", ms / 1000, ms % 1000));
        }
        Some(At::Start) => out.push_str(" @ start()"),
        Some(At::End) => out.push_str(" @ end()"),
        None => {}
    }
    match &shift.offset {
        Some(Duration::Millis(0)) | None => {}
        Some(offset) => out.push_str(&format!(" offset {}", duration(offset))),
    }
    out
}

fn subquery_tail(range: &Duration, step: Option<&Duration>, at: &Shift) -> String {
    let step = step.map(duration).unwrap_or_default();
    format!("[{}:{step}]{}", duration(range), shift(at))
}

fn duration(duration: &Duration) -> String {
    match duration {
        Duration::Millis(ms) => format_duration(*ms),
        Duration::Expr(expr) => duration_expr(expr),
    }
}

/// Nesting of duration expressions is bounded by the parser.
fn duration_expr(expr: &DurationExpr) -> String {
    match &expr.kind {
        DurationKind::Number(value, written) => number(*value, *written),
        DurationKind::Step => "step()".to_owned(),
        DurationKind::Range => "range()".to_owned(),
        DurationKind::Unary(negative, inner) => {
            format!("{}{}", if *negative { "-" } else { "+" }, duration_expr(inner))
        }
        DurationKind::Paren(inner) => format!("({})", duration_expr(inner)),
        DurationKind::Binary(op @ (DurationOp::MinOf | DurationOp::MaxOf), lhs, rhs) => {
            format!("{}({}, {})", op.as_str(), duration_expr(lhs), duration_expr(rhs))
        }
        DurationKind::Binary(op, lhs, rhs) => {
            format!("{} {} {}", duration_expr(lhs), op.as_str(), duration_expr(rhs))
        }
    }
}

/// The operator with its modifiers.
fn operator(ast: &Ast, binary: &Binary) -> String {
    let mut out = binary.op.as_str().to_owned();
    if binary.bool_modifier {
        out.push_str(" bool");
    }
    let matching = &binary.matching;
    if ast.kind(binary.lhs) != Type::Vector || ast.kind(binary.rhs) != Type::Vector {
        return out;
    }
    let grouped = matches!(matching.cardinality, Cardinality::ManyToOne | Cardinality::OneToMany);
    if matching.on || !matching.labels.is_empty() || grouped {
        let word = if matching.on { "on" } else { "ignoring" };
        out.push_str(&format!(" {word} ({})", label_names(&matching.labels)));
    }
    if grouped {
        let word = if matching.cardinality == Cardinality::ManyToOne { "group_left" } else { "group_right" };
        out.push_str(&format!(" {word} ({})", label_names(&matching.include)));
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left.to_bits() == right.to_bits() => {
            out.push_str(&format!(" fill ({})", format_literal(left)));
        }
        (left, right) => {
            if let Some(left) = left {
                out.push_str(&format!(" fill_left ({})", format_literal(left)));
            }
            if let Some(right) = right {
                out.push_str(&format!(" fill_right ({})", format_literal(right)));
            }
        }
    }
    out
}

fn aggregate_head(aggregate: &Aggregate) -> String {
    let op = aggregate.op.as_str();
    if aggregate.without {
        format!("{op} without ({}) ", label_names(&aggregate.grouping))
    } else if aggregate.grouping.is_empty() {
        op.to_owned()
    } else {
        format!("{op} by ({}) ", label_names(&aggregate.grouping))
    }
}

enum Line {
    Node(NodeId, usize),
    Word(String),
}

/// The expression with nodes over 100 characters broken, two spaces per level.
pub fn pretty(ast: &Ast) -> String {
    let mut out = String::new();
    let mut open = vec![Line::Node(ast.root, 0)];
    while let Some(part) = open.pop() {
        match part {
            Line::Word(word) => out.push_str(&word),
            Line::Node(id, level) => {
                let mut parts = Vec::new();
                broken(ast, id, level, &mut parts);
                open.extend(parts.into_iter().rev());
            }
        }
    }
    out
}

fn indent(level: usize) -> String {
    // Deeper than this nothing becomes more readable, and a chain of thousands would grow as its square.
    const LEVELS_MAX: usize = 100;
    "  ".repeat(level.min(LEVELS_MAX))
}

fn broken(ast: &Ast, id: NodeId, level: usize, out: &mut Vec<Line>) {
    let margin = indent(level);
    let fits = fits_on_line(ast, id);
    let word = |text: String| Line::Word(text);
    match ast.expr(id) {
        Expr::Binary(binary) if !fits => out.extend([
            Line::Node(binary.lhs, level + 1),
            word(format!("\n{margin}{}\n", operator(ast, binary))),
            Line::Node(binary.rhs, level + 1),
        ]),
        Expr::Aggregate(aggregate) if !fits => {
            out.push(word(format!("{margin}{}(\n", aggregate_head(aggregate))));
            if let Some(param) = aggregate.param {
                out.extend([Line::Node(param, level + 1), word(",\n".to_owned())]);
            }
            out.extend([Line::Node(aggregate.expr, level + 1), word(format!("\n{margin})"))]);
        }
        Expr::Call { function, args } if !fits => {
            out.push(word(format!("{margin}{}(\n", function.name)));
            for (i, arg) in args.iter().enumerate() {
                if i > 0 {
                    out.push(word(",\n".to_owned()));
                }
                out.push(Line::Node(*arg, level + 1));
            }
            out.push(word(format!("\n{margin})")));
        }
        Expr::Paren(inner) if !fits => {
            out.extend([word(format!("{margin}(\n")), Line::Node(*inner, level + 1), word(format!("\n{margin})"))])
        }
        Expr::Subquery { expr, range, step, shift } if !fits => {
            out.extend([Line::Node(*expr, level), word(subquery_tail(range, step.as_ref(), shift))]);
        }
        Expr::Unary { negative, expr } if !fits => {
            out.push(word(format!("{margin}{}", if *negative { "-" } else { "+" })));
            // The operand starts behind the sign, so its own margin is dropped.
            let mut inner = Vec::new();
            broken(ast, *expr, level, &mut inner);
            if let Some(Line::Word(first)) = inner.first_mut() {
                *first = first.trim_start().to_owned();
            }
            out.append(&mut inner);
        }
        _ => out.push(word(format!("{margin}{}", print_node(ast, id)))),
    }
}

/// Whether the node takes at most 100 characters on a line; long texts are told without printing them.
fn fits_on_line(ast: &Ast, id: NodeId) -> bool {
    let span = ast.span(id);
    if span.end - span.start > 40 * LINE_CHARS_MAX && matches!(ast.expr(id), Expr::Binary(_)) {
        return false;
    }
    print_node(ast, id).chars().count() <= LINE_CHARS_MAX
}
