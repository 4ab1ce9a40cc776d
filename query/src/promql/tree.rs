//! Syntax tree → the JSON of `parse_query`.

use serde_json::{Map, Value, json};

use super::ast::{Ast, At, Duration, DurationExpr, DurationKind, Expr, Extent, NodeId, Selector, Shift, Type};
use super::number::format_literal;

/// The tree of `ast`; children are built before their parents.
pub(super) fn tree(ast: &Ast) -> Value {
    let mut built: Vec<Option<Value>> = Vec::with_capacity(ast.nodes.len());
    for i in 0..ast.nodes.len() {
        let value = node(ast, NodeId(i), &mut built);
        built.push(Some(value));
    }
    take(&mut built, ast.root)
}

fn take(built: &mut [Option<Value>], id: NodeId) -> Value {
    built.get_mut(id.0).and_then(Option::take).unwrap_or(Value::Null)
}

fn node(ast: &Ast, id: NodeId, built: &mut [Option<Value>]) -> Value {
    match ast.expr(id) {
        Expr::Number { value, .. } => json!({"type": "numberLiteral", "val": format_literal(*value)}),
        Expr::Text(text) => json!({"type": "stringLiteral", "val": text}),
        Expr::Vector(selector) => Value::Object(series(selector, "vectorSelector")),
        Expr::Matrix { selector, range } => {
            let mut object = series(selector, "matrixSelector");
            object.insert("range".to_owned(), millis(Some(range)));
            object.insert("rangeExpr".to_owned(), expression(Some(range)));
            Value::Object(object)
        }
        Expr::Subquery { expr, range, step, shift } => {
            let mut object = Map::new();
            object.insert("type".to_owned(), json!("subquery"));
            object.insert("expr".to_owned(), take(built, *expr));
            object.insert("range".to_owned(), millis(Some(range)));
            object.insert("rangeExpr".to_owned(), expression(Some(range)));
            object.insert("step".to_owned(), millis(step.as_ref()));
            object.insert("stepExpr".to_owned(), expression(step.as_ref()));
            shifted(&mut object, shift);
            Value::Object(object)
        }
        Expr::Unary { negative, expr } => {
            json!({"type": "unaryExpr", "op": if *negative { "-" } else { "+" }, "expr": take(built, *expr)})
        }
        Expr::Paren(expr) => json!({"type": "parenExpr", "expr": take(built, *expr)}),
        Expr::Binary(binary) => {
            let vectors = ast.kind(binary.lhs) == Type::Vector && ast.kind(binary.rhs) == Type::Vector;
            let m = &binary.matching;
            let matching = vectors.then(|| {
                json!({
                    "card": m.cardinality.as_str(), "labels": m.labels, "on": m.on, "include": m.include,
                    "fillValues": {"lhs": m.fill_left, "rhs": m.fill_right},
                })
            });
            json!({
                "type": "binaryExpr", "op": binary.op.as_str(), "bool": binary.bool_modifier, "matching": matching,
                "lhs": take(built, binary.lhs), "rhs": take(built, binary.rhs),
            })
        }
        Expr::Aggregate(a) => json!({
            "type": "aggregation", "op": a.op.as_str(), "grouping": a.grouping, "without": a.without,
            "param": a.param.map(|param| take(built, param)), "expr": take(built, a.expr),
        }),
        Expr::Call { function, args } => {
            let types: Vec<&str> = function.args.iter().map(|arg| arg.short()).collect();
            let args: Vec<Value> = args.iter().map(|arg| take(built, *arg)).collect();
            json!({
                "type": "call", "args": args,
                "func": {"name": function.name, "argTypes": types, "variadic": function.variadic,
                         "returnType": function.returns.short()},
            })
        }
    }
}

fn series(selector: &Selector, kind: &str) -> Map<String, Value> {
    let matchers: Vec<Value> = selector
        .matchers
        .iter()
        .map(|matcher| json!({"name": matcher.name, "type": matcher.op.to_string(), "value": matcher.value}))
        .collect();
    let mut object = Map::new();
    object.insert("type".to_owned(), json!(kind));
    object.insert("name".to_owned(), json!(selector.name.as_deref().unwrap_or("")));
    object.insert("matchers".to_owned(), json!(matchers));
    object.insert("anchored".to_owned(), json!(selector.extent == Extent::Anchored));
    object.insert("smoothed".to_owned(), json!(selector.extent == Extent::Smoothed));
    shifted(&mut object, &selector.shift);
    object
}

fn shifted(object: &mut Map<String, Value>, shift: &Shift) {
    object.insert("offset".to_owned(), millis(shift.offset.as_ref()));
    object.insert("offsetExpr".to_owned(), expression(shift.offset.as_ref()));
    let (time, end) = match shift.at {
        Some(At::Time(ms)) => (Some(ms), None),
        Some(At::Start) => (None, Some("start")),
        Some(At::End) => (None, Some("end")),
        None => (None, None),
    };
    object.insert("timestamp".to_owned(), json!(time));
    object.insert("startOrEnd".to_owned(), json!(end));
}

fn millis(duration: Option<&Duration>) -> Value {
    match duration {
        Some(Duration::Millis(ms)) => json!(ms),
        _ => json!(0),
    }
}

fn expression(duration: Option<&Duration>) -> Value {
    match duration {
        Some(Duration::Expr(expr)) => duration_tree(expr),
        _ => Value::Null,
    }
}

/// Nesting of duration expressions is bounded by the parser.
fn duration_tree(expr: &DurationExpr) -> Value {
    match &expr.kind {
        DurationKind::Number(value, _) => json!({"type": "numberLiteral", "val": format_literal(*value)}),
        DurationKind::Step => json!({"type": "durationExpr", "op": "step", "lhs": null, "rhs": null}),
        DurationKind::Range => json!({"type": "durationExpr", "op": "range", "lhs": null, "rhs": null}),
        DurationKind::Unary(negative, inner) => {
            let op = if *negative { "-" } else { "+" };
            json!({"type": "durationExpr", "op": op, "lhs": null, "rhs": duration_tree(inner)})
        }
        DurationKind::Paren(inner) => {
            let mut inner = duration_tree(inner);
            if let Value::Object(object) = &mut inner {
                object.insert("wrapped".to_owned(), json!(true));
            }
            inner
        }
        DurationKind::Binary(op, lhs, rhs) => {
            json!({"type": "durationExpr", "op": op.as_str(), "lhs": duration_tree(lhs), "rhs": duration_tree(rhs)})
        }
    }
}
