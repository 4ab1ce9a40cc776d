//! Reads a query that a user is still typing: what of it can be used as a filter.
//!
//! Only a single `{…}` counts. Comparisons joined by `&&` and `||` are kept one by one; those half-written are
//! dropped. Nothing here is ever an error.

use super::super::ast::{AttributeScope, FieldKind, Reference, Root, Spansets, Stage};
use super::super::check::check;
use super::super::lexer::{Token, tokens};
use super::super::parser::parse;

/// The usable part of `text` as a filter, or `None`: as if there were none.
pub fn filter_of(text: &str) -> Option<Spansets> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return None;
    }
    filter_in(&salvaged(trimmed)?)
}

/// The filter of a complete text that is nothing but one `{…}`.
fn filter_in(text: &str) -> Option<Spansets> {
    let query = parse(text).ok()?;
    check(&query).ok()?;
    let Root::Spansets(pipeline) = query.root else { return None };
    match <[Stage; 1]>::try_from(pipeline.stages) {
        Ok([Stage::Spansets(filter @ Spansets::Filter(Some(_)))]) => Some(filter),
        _ => None,
    }
}

/// Whether an attribute without scope takes part; such conditions do not narrow a completion.
fn mentions_any_scope(filter: &Spansets) -> bool {
    let Spansets::Filter(Some(field)) = filter else { return false };
    let mut rest = vec![field];
    while let Some(field) = rest.pop() {
        match &field.kind {
            FieldKind::Static(_) => {}
            FieldKind::Reference(reference) => {
                if matches!(reference, Reference::Attribute(attribute) if attribute.scope == AttributeScope::Any) {
                    return true;
                }
            }
            FieldKind::Unary(_, inner) => rest.push(inner),
            FieldKind::Binary(_, left, right) => rest.extend([left.as_ref(), right.as_ref()]),
        }
    }
    false
}

/// The conditions of `{ a && b || …` that are whole, put together again.
fn salvaged(text: &str) -> Option<String> {
    let body = text.strip_prefix('{')?;
    // What cannot even be read ends the usable part.
    let (list, body) = match tokens(body) {
        Ok(list) => (list, body),
        Err(error) => {
            let body = body.get(..error.span?.start)?;
            (tokens(body).ok()?, body)
        }
    };
    let mut kept = String::new();
    let (mut depth, mut from, mut joiner) = (0i32, 0, "");
    for (token, span) in list {
        let (cut, next, ends) = match token {
            Token::Sign("(") => {
                depth += 1;
                continue;
            }
            Token::Sign(")") => {
                depth -= 1;
                continue;
            }
            Token::Sign(sign @ ("&&" | "||")) if depth == 0 => (span.start, sign, false),
            Token::Sign("}") | Token::End => (span.start, "", true),
            _ => continue,
        };
        let part = body.get(from..cut)?.trim();
        if filter_in(&format!("{{ {part} }}")).is_some_and(|filter| !mentions_any_scope(&filter)) {
            if !kept.is_empty() {
                kept.push_str(joiner);
            }
            kept.push_str(&format!(" {part} "));
        }
        (from, joiner) = (span.end, next);
        if ends {
            let rest = body.get(span.end..)?.trim();
            return (rest.is_empty() && !kept.is_empty()).then(|| format!("{{{kept}}}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_filter(text: &str, expected: Option<&str>) {
        assert_eq!(filter_of(text).map(|filter| filter.to_string()).as_deref(), expected, "{text}");
    }

    #[test]
    fn what_is_whole_is_kept() {
        check_filter("", None);
        check_filter("{}", None);
        check_filter("{ bad", None);
        check_filter("{ span.x = }", None);
        check_filter("{ span.x = 1 }", Some("{ span.x = 1 }"));
        check_filter("{ span.x = 1 && span.y = }", Some("{ span.x = 1 }"));
        check_filter("{ span.y = && span.x = 1", Some("{ span.x = 1 }"));
        check_filter("{ span.x = 1 && span.y = \"unfinished", Some("{ span.x = 1 }"));
        check_filter("{ span.x = 1 || (span.y > 2 && span.z", Some("{ span.x = 1 }"));
        check_filter("{ span.x = 1 || (span.y > 2)", Some("{ (span.x = 1) || (span.y > 2) }"));
        check_filter("{ .x = 1 && span.y = 2 }", Some("{ span.y = 2 }"));
        check_filter("{ span.x = 1 } && { span.y = 2 }", None);
        check_filter("{ span.x = 1 } | count() > 1", None);
    }
}
