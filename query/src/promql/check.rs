//! Types: what may be given to what. Errors name the type wanted and the type found.
//!
//! Owns: all rules that need more than one node. Nodes are checked children first, so the first error is the
//! innermost, as in the original.

use super::ast::{Aggregate, AggregateOp, Ast, Binary, Cardinality, Expr, NodeId, Type};
use super::functions::Function;
use super::parser::parse_error;
use crate::error::Result;

/// Checks every node.
pub(super) fn check(ast: &Ast) -> Result<()> {
    for (i, node) in ast.nodes.iter().enumerate() {
        let id = NodeId(i);
        match &node.expr {
            Expr::Unary { expr, .. } => {
                let found = ast.kind(*expr);
                if !matches!(found, Type::Scalar | Type::Vector) {
                    let message = format!(
                        "unary expression only allowed on expressions of type scalar or instant vector, got \"{}\"",
                        found.as_str()
                    );
                    return Err(error(ast, id, message));
                }
            }
            Expr::Subquery { expr, .. } => {
                let found = ast.kind(*expr);
                if found != Type::Vector {
                    let message = format!("subquery is only allowed on instant vector, got {} instead", found.as_str());
                    return Err(error(ast, id, message));
                }
            }
            Expr::Binary(binary) => check_binary(ast, id, binary)?,
            Expr::Aggregate(aggregate) => check_aggregate(ast, aggregate)?,
            Expr::Call { function, args } => check_call(ast, id, function, args)?,
            _ => {}
        }
    }
    Ok(())
}

fn error(ast: &Ast, id: NodeId, message: impl std::fmt::Display) -> crate::error::Error {
    parse_error(&ast.text, ast.span(id), message)
}

fn expect(ast: &Ast, id: NodeId, wanted: Type, context: &str) -> Result<()> {
    let found = ast.kind(id);
    if found == wanted {
        return Ok(());
    }
    Err(error(ast, id, format!("expected type {} in {context}, got {}", wanted.as_str(), found.as_str())))
}

fn check_aggregate(ast: &Ast, aggregate: &Aggregate) -> Result<()> {
    expect(ast, aggregate.expr, Type::Vector, "aggregation expression")?;
    if let Some(param) = aggregate.param {
        let wanted = if aggregate.op == AggregateOp::CountValues { Type::Text } else { Type::Scalar };
        expect(ast, param, wanted, "aggregation parameter")?;
    }
    Ok(())
}

fn check_call(ast: &Ast, id: NodeId, function: &Function, args: &[NodeId]) -> Result<()> {
    let (name, wanted, found) = (function.name, function.args.len(), args.len());
    let message = if function.variadic == 0 {
        (found != wanted).then(|| format!("expected {wanted} argument(s) in call to \"{name}\", got {found}"))
    } else {
        let least = wanted - 1;
        let most = usize::try_from(function.variadic).ok().map(|n| least + n);
        if found < least {
            Some(format!("expected at least {least} argument(s) in call to \"{name}\", got {found}"))
        } else {
            most.filter(|most| found > *most)
                .map(|most| format!("expected at most {most} argument(s) in call to \"{name}\", got {found}"))
        }
    };
    if let Some(message) = message {
        return Err(error(ast, id, message));
    }
    if name == "info"
        && let Some(labels) = args.get(1)
        && !matches!(ast.expr(*labels), Expr::Vector(selector) if selector.name.is_none())
    {
        return Err(error(ast, *labels, "expected label selectors as the second argument to 'info' function"));
    }
    for (i, arg) in args.iter().enumerate() {
        if let Some(wanted) = function.args.get(i).or(function.args.last()) {
            expect(ast, *arg, *wanted, &format!("call to function \"{name}\""))?;
        }
    }
    Ok(())
}

fn check_binary(ast: &Ast, id: NodeId, binary: &Binary) -> Result<()> {
    let (op, matching) = (binary.op, &binary.matching);
    let at_op = |message: String| Err(parse_error(&ast.text, binary.op_span, message));
    if binary.bool_modifier && !op.is_comparison() {
        return at_op("bool modifier can only be used on comparison operators".to_owned());
    }
    let (left, right) = (ast.kind(binary.lhs), ast.kind(binary.rhs));
    if op.is_comparison() && !binary.bool_modifier && left == Type::Scalar && right == Type::Scalar {
        return at_op("comparisons between scalars must use BOOL modifier".to_owned());
    }
    if op.is_set() && left == Type::Scalar && right == Type::Scalar {
        return Err(error(
            ast,
            id,
            format!("set operator \"{}\" not allowed in binary scalar expression", op.as_str()),
        ));
    }
    if matching.on
        && let Some(label) = matching.labels.iter().find(|label| matching.include.contains(label))
    {
        return at_op(format!("label \"{label}\" must not occur in ON and GROUP clause at once"));
    }
    for side in [binary.lhs, binary.rhs] {
        if !matches!(ast.kind(side), Type::Scalar | Type::Vector) {
            let message = "binary expression must contain only scalar and instant vector types";
            return Err(error(ast, side, message));
        }
    }
    let filled = matching.fill_left.is_some() || matching.fill_right.is_some();
    if left != Type::Vector || right != Type::Vector {
        if !matching.labels.is_empty() {
            return Err(error(ast, id, "vector matching only allowed between instant vectors"));
        }
        if filled {
            return Err(error(ast, id, "filling in missing series only allowed between instant vectors"));
        }
        if op.is_set() {
            let message = format!("set operator \"{}\" not allowed in binary scalar expression", op.as_str());
            return Err(error(ast, id, message));
        }
    } else if op.is_set() {
        if matching.cardinality != Cardinality::ManyToMany {
            return Err(error(ast, id, format!("no grouping allowed for \"{}\" operation", op.as_str())));
        }
        if filled {
            return Err(error(ast, id, "filling in missing series not allowed for set operators"));
        }
    }
    Ok(())
}
