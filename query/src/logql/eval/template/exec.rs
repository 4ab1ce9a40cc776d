//! Nodes → text for one entry.
//!
//! Owns: scopes of variables, the dot, the order of evaluation.

use std::collections::BTreeMap;

use super::functions::{Arguments, RegexCache};
use super::parse::{Node, Operand, Pipe};
use super::value::Val;
use super::{OUTPUT_BYTES_MAX, Scope};

/// What a block ended with.
#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

/// The dot: the entry itself, or a value.
#[derive(Clone)]
enum Dot {
    Entry,
    Value(Val),
}

struct Exec<'t, 's, 'a> {
    scope: &'t Scope<'s, 'a>,
    regexes: &'t RegexCache,
    variables: Vec<(String, Val)>,
    out: String,
}

/// Renders `nodes`.
pub fn run(nodes: &[Node], scope: &Scope<'_, '_>, regexes: &RegexCache) -> Result<String, String> {
    let mut exec = Exec { scope, regexes, variables: Vec::new(), out: String::new() };
    exec.block(nodes, &Dot::Entry)?;
    Ok(exec.out)
}

impl Exec<'_, '_, '_> {
    fn block(&mut self, nodes: &[Node], dot: &Dot) -> Result<Flow, String> {
        let depth = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot)?;
            if self.out.len() > OUTPUT_BYTES_MAX {
                return Err(format!("the template writes more than {OUTPUT_BYTES_MAX} bytes"));
            }
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(depth);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Dot) -> Result<Flow, String> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipe) => {
                // A label on its own, the most frequent form, is copied without becoming a value.
                if let (Dot::Entry, Some(name)) = (dot, plain_label(pipe)) {
                    self.out.push_str(self.scope.labels.get(name).unwrap_or(""));
                    return Ok(Flow::On);
                }
                let value = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    value.print(&mut self.out);
                }
            }
            Node::If(branches, otherwise) => {
                let depth = self.variables.len();
                for (condition, body) in branches {
                    if self.pipe(condition, dot)?.truth() {
                        let flow = self.block(body, dot)?;
                        self.variables.truncate(depth);
                        return Ok(flow);
                    }
                }
                let flow = self.block(otherwise, dot)?;
                self.variables.truncate(depth);
                return Ok(flow);
            }
            Node::With(pipe, body, otherwise) => {
                let depth = self.variables.len();
                let value = self.pipe(pipe, dot)?;
                let flow = match value.truth() {
                    true => self.block(body, &Dot::Value(value))?,
                    false => self.block(otherwise, dot)?,
                };
                self.variables.truncate(depth);
                return Ok(flow);
            }
            Node::Range(pipe, body, otherwise) => self.range(pipe, body, otherwise, dot)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn range(&mut self, pipe: &Pipe, body: &[Node], otherwise: &[Node], dot: &Dot) -> Result<(), String> {
        let depth = self.variables.len();
        let items: Vec<(Val, Val)> = match self.commands(pipe, dot)? {
            Val::List(list) => list
                .into_iter()
                .enumerate()
                .map(|(i, value)| (Val::Int(i64::try_from(i).unwrap_or(0)), value))
                .collect(),
            Val::Map(map) => map.into_iter().map(|(key, value)| (Val::Text(key), value)).collect(),
            Val::Int(n) => (0..n).take(OUTPUT_BYTES_MAX).map(|i| (Val::Int(i), Val::Int(i))).collect(),
            Val::Nil => Vec::new(),
            other => return Err(format!("range can't iterate over {}", other.text())),
        };
        if items.is_empty() {
            self.block(otherwise, dot)?;
        }
        for (key, value) in items {
            match pipe.variables.as_slice() {
                [one] => self.variables.push((one.clone(), value.clone())),
                [first, second] => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), value.clone()));
                }
                _ => {}
            }
            let flow = self.block(body, &Dot::Value(value))?;
            self.variables.truncate(depth);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    /// The value of a pipe, which is also assigned.
    fn pipe(&mut self, pipe: &Pipe, dot: &Dot) -> Result<Val, String> {
        let value = self.commands(pipe, dot)?;
        for name in &pipe.variables {
            if pipe.declares {
                self.variables.push((name.clone(), value.clone()));
                continue;
            }
            match self.variables.iter_mut().rev().find(|(held, _)| held == name) {
                Some((_, held)) => *held = value.clone(),
                None => return Err(format!("undefined variable: ${name}")),
            }
        }
        Ok(value)
    }

    fn commands(&mut self, pipe: &Pipe, dot: &Dot) -> Result<Val, String> {
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(command, value, dot)?);
        }
        Ok(value.unwrap_or(Val::Nil))
    }

    fn command(&mut self, command: &[Operand], last: Option<Val>, dot: &Dot) -> Result<Val, String> {
        let Some((first, rest)) = command.split_first() else { return Ok(Val::Nil) };
        let Operand::Function(function) = first else {
            if !rest.is_empty() || last.is_some() {
                return Err("can't give argument to non-function".to_owned());
            }
            return self.operand(first, dot);
        };
        // `and` and `or` stop at the first value that decides.
        if let Some(stops_at) = function.short_circuit {
            let mut value = Val::Nil;
            for operand in rest {
                value = self.operand(operand, dot)?;
                if value.truth() == stops_at {
                    return Ok(value);
                }
            }
            return match (last, rest.is_empty()) {
                (Some(last), _) => Ok(last),
                (None, false) => Ok(value),
                (None, true) => Err(format!("wrong number of args for {}", function.name)),
            };
        }
        let mut values = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            values.push(self.operand(operand, dot)?);
        }
        values.extend(last);
        let (least, most) = function.arguments;
        if values.len() < least || values.len() > most {
            return Err(format!("wrong number of args for {}: got {}", function.name, values.len()));
        }
        let arguments = Arguments { values, line: self.scope.line, ts_ns: self.scope.ts_ns, regexes: self.regexes };
        (function.eval)(arguments).map_err(|reason| format!("error calling {}: {reason}", function.name))
    }

    fn operand(&mut self, operand: &Operand, dot: &Dot) -> Result<Val, String> {
        Ok(match operand {
            Operand::Dot => self.dot(dot),
            Operand::Nil => Val::Nil,
            Operand::Bool(b) => Val::Bool(*b),
            Operand::Int(n) => Val::Int(*n),
            Operand::Float(x) => Val::Float(*x),
            Operand::Text(text) => Val::Text(text.clone()),
            Operand::Function(_) => return self.command(std::slice::from_ref(operand), None, dot),
            Operand::Field(names) => match (dot, names.split_first()) {
                (Dot::Entry, Some((name, rest))) => fields(self.label(name), rest)?,
                (Dot::Value(value), _) => fields(value.clone(), names)?,
                (Dot::Entry, None) => Val::Nil,
            },
            Operand::Variable(name, names) => match (name.as_str(), names.split_first()) {
                ("", None) => self.dot(&Dot::Entry),
                ("", Some((name, rest))) => fields(self.label(name), rest)?,
                (name, _) => {
                    let held = self.variables.iter().rev().find(|(held, _)| held == name);
                    let (_, value) = held.ok_or_else(|| format!("undefined variable: ${name}"))?;
                    fields(value.clone(), names)?
                }
            },
            Operand::Nested(pipe, names) => fields(self.pipe(pipe, dot)?, names)?,
        })
    }

    fn label(&self, name: &str) -> Val {
        Val::Text(self.scope.labels.get(name).unwrap_or("").to_owned())
    }

    fn dot(&self, dot: &Dot) -> Val {
        match dot {
            Dot::Value(value) => value.clone(),
            Dot::Entry => {
                let labels = self.scope.labels.iter();
                let map: BTreeMap<String, Val> =
                    labels.map(|(name, value, _)| (name.to_owned(), Val::Text(value.to_owned()))).collect();
                Val::Map(map)
            }
        }
    }
}

/// The label that a pipe prints and nothing else.
fn plain_label(pipe: &Pipe) -> Option<&str> {
    match (pipe.variables.as_slice(), pipe.commands.as_slice()) {
        ([], [command]) => match command.as_slice() {
            [Operand::Field(names)] if names.len() == 1 => names.first().map(String::as_str),
            _ => None,
        },
        _ => None,
    }
}

fn fields(mut value: Val, names: &[String]) -> Result<Val, String> {
    for name in names {
        value = match value {
            Val::Map(mut map) => map.remove(name).unwrap_or(Val::Nil),
            Val::Nil => return Err(format!("nil pointer evaluating interface {{}}.{name}")),
            other => return Err(format!("can't evaluate field {name} in type {}", other.kind())),
        };
    }
    Ok(value)
}
