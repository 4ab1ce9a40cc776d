//! Template text → nodes.
//!
//! Owns: delimiters and trimming, actions, pipes, operands. Invariant: nodes nest at most [`DEPTH_MAX`] deep.

use super::functions::{self, Function};
use crate::logql::eval::labels::Needs;

/// The deepest nesting of actions and parentheses.
const DEPTH_MAX: usize = 64;

/// A part of a template.
#[derive(Debug)]
pub enum Node {
    /// Copied.
    Text(String),
    /// `{{ pipe }}`
    Print(Pipe),
    /// `if`, with its `else if`s.
    If(Vec<(Pipe, Vec<Node>)>, Vec<Node>),
    /// `with`
    With(Pipe, Vec<Node>, Vec<Node>),
    /// `range`
    Range(Pipe, Vec<Node>, Vec<Node>),
    /// `break`
    Break,
    /// `continue`
    Continue,
}

/// Commands joined by `|`, possibly assigned.
#[derive(Debug)]
pub struct Pipe {
    /// Variables on the left.
    pub variables: Vec<String>,
    /// Set for `:=`, not for `=`.
    pub declares: bool,
    /// In order.
    pub commands: Vec<Vec<Operand>>,
}

/// An operand.
#[derive(Debug)]
pub enum Operand {
    /// `.`
    Dot,
    /// `nil`
    Nil,
    /// `true`
    Bool(bool),
    /// `1`
    Int(i64),
    /// `1.5`
    Float(f64),
    /// `"x"`
    Text(String),
    /// A function.
    Function(&'static Function),
    /// `.a.b`
    Field(Vec<String>),
    /// `$x.a`
    Variable(String, Vec<String>),
    /// `(pipe).a`
    Nested(Box<Pipe>, Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Space,
    /// Word, function or keyword.
    Word(String),
    Dot,
    /// `.a`
    Field(String),
    /// `$x`
    Variable(String),
    Text(String),
    Int(i64),
    Float(f64),
    Pipe,
    Open,
    Close,
    Comma,
    Declare,
    Assign,
}

/// What stands in `{{ }}`.
#[derive(Debug)]
enum Piece {
    Text(String),
    Action(Vec<Token>),
}

/// Compiles a template.
pub fn parse(text: &str) -> Result<Vec<Node>, String> {
    let mut parser = Parser { pieces: pieces(text)?.into_iter(), depth: 0 };
    let (nodes, end) = parser.block()?;
    match end {
        End::Text => Ok(nodes),
        End::Else(_) => Err("unexpected {{else}}".to_owned()),
        End::Done => Err("unexpected {{end}}".to_owned()),
    }
}

/// Cuts at `{{` and `}}`, trims at `{{-` and `-}}`, drops comments.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut list: Vec<Piece> = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    loop {
        let (before, action) = match rest.find("{{") {
            Some(at) => (&rest[..at], Some(&rest[at + 2..])),
            None => (rest, None),
        };
        let mut literal = if trim_next { before.trim_start() } else { before };
        let Some(mut inside) = action else {
            push_text(&mut list, literal);
            return Ok(list);
        };
        if let Some(trimmed) = inside.strip_prefix('-').filter(|after| after.starts_with(char::is_whitespace)) {
            literal = literal.trim_end();
            inside = trimmed;
        }
        push_text(&mut list, literal);
        let (tokens, after, trims) = match inside.trim_start().strip_prefix("/*") {
            Some(comment) => {
                let end = comment.find("*/").ok_or("unclosed comment")?;
                let close = comment[end + 2..].trim_start();
                let trims = close.strip_prefix('-');
                let after = trims.unwrap_or(close).strip_prefix("}}").ok_or("comment ends before closing delimiter")?;
                (None, after, trims.is_some())
            }
            None => {
                let (tokens, after, trims) = tokens(inside)?;
                (Some(tokens), after, trims)
            }
        };
        list.extend(tokens.map(Piece::Action));
        trim_next = trims;
        rest = after;
    }
}

fn push_text(list: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        list.push(Piece::Text(text.to_owned()));
    }
}

/// The tokens up to `}}`, what follows, and whether it is trimmed.
fn tokens(text: &str) -> Result<(Vec<Token>, &str, bool), String> {
    let mut list = Vec::new();
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((list, after, false));
        }
        let blanks = rest.len() - rest.trim_start().len();
        if blanks > 0 {
            if let Some(after) = rest.trim_start().strip_prefix("-}}") {
                return Ok((list, after, true));
            }
            list.push(Token::Space);
            rest = rest.trim_start();
            continue;
        }
        let (token, used) = token(rest)?;
        list.push(token);
        rest = &rest[used..];
    }
}

fn token(rest: &str) -> Result<(Token, usize), String> {
    let first = rest.chars().next().ok_or("unclosed action")?;
    let word = |from: usize| {
        let length: usize =
            rest[from..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').map(char::len_utf8).sum();
        (rest[from..from + length].to_owned(), from + length)
    };
    Ok(match first {
        '|' => (Token::Pipe, 1),
        '(' => (Token::Open, 1),
        ')' => (Token::Close, 1),
        ',' => (Token::Comma, 1),
        '=' => (Token::Assign, 1),
        ':' if rest.starts_with(":=") => (Token::Declare, 2),
        '$' => {
            let (name, used) = word(1);
            (Token::Variable(name), used)
        }
        '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => match word(1) {
            (name, _) if name.is_empty() => (Token::Dot, 1),
            (name, used) => (Token::Field(name), used),
        },
        '`' => {
            let end = rest[1..].find('`').ok_or("unterminated raw quoted string")?;
            (Token::Text(rest[1..1 + end].to_owned()), end + 2)
        }
        '"' => quoted(rest)?,
        '\'' => {
            let end = rest[1..].find('\'').ok_or("unterminated character constant")?;
            let inside = &rest[1..1 + end];
            let c = inside.chars().next().filter(|c| c.len_utf8() == inside.len()).ok_or("bad character constant")?;
            (Token::Int(i64::from(u32::from(c))), end + 2)
        }
        '0'..='9' | '.' | '-' | '+' => number(rest)?,
        c if c.is_alphabetic() || c == '_' => {
            let (name, used) = word(0);
            (Token::Word(name), used)
        }
        c => return Err(format!("unexpected {c:?} in action")),
    })
}

fn quoted(rest: &str) -> Result<(Token, usize), String> {
    let mut escaped = false;
    let closing = rest[1..].find(|c| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    });
    let inside = &rest[1..1 + closing.ok_or("unterminated quoted string")?];
    let text = crate::logql::lexer::unescape(inside).ok_or("bad escape in string")?;
    Ok((Token::Text(text), inside.len() + 2))
}

fn number(rest: &str) -> Result<(Token, usize), String> {
    let digits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
    let sign = usize::from(rest.starts_with(['-', '+']));
    let mut used = sign + rest[sign..].find(|c| !digits(c)).unwrap_or(rest.len() - sign);
    // The sign of an exponent.
    if rest[..used].ends_with(['e', 'E']) && rest[used..].starts_with(['-', '+']) {
        let after = used + 1;
        used = after + rest[after..].find(|c| !digits(c)).unwrap_or(rest.len() - after);
    }
    let text = rest[..used].replace('_', "");
    let text = text.strip_prefix('+').unwrap_or(&text);
    if let Some(n) = super::numbers::parse_int(text) {
        return Ok((Token::Int(n), used));
    }
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() => Ok((Token::Float(x), used)),
        _ => Err(format!("bad number syntax: {:?}", &rest[..used])),
    }
}

/// What ends a block.
enum End {
    Text,
    /// With what follows the word.
    Else(Vec<Token>),
    Done,
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    depth: usize,
}

impl Parser {
    fn enter(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(format!("nested deeper than {DEPTH_MAX}")) } else { Ok(()) }
    }

    fn block(&mut self) -> Result<(Vec<Node>, End), String> {
        let mut nodes = Vec::new();
        loop {
            let tokens = match self.pieces.next() {
                None => return Ok((nodes, End::Text)),
                Some(Piece::Text(text)) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Some(Piece::Action(tokens)) => trimmed(tokens),
            };
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.clone(),
                _ => String::new(),
            };
            let rest = || trimmed(tokens.get(1..).unwrap_or(&[]).to_vec());
            match keyword.as_str() {
                "end" if tokens.len() == 1 => return Ok((nodes, End::Done)),
                "else" => return Ok((nodes, End::Else(rest()))),
                "if" => nodes.push(self.conditional(rest())?),
                "with" | "range" => nodes.push(self.scoped(&keyword, rest())?),
                "break" if tokens.len() == 1 => nodes.push(Node::Break),
                "continue" if tokens.len() == 1 => nodes.push(Node::Continue),
                "define" | "template" | "block" => return Err(format!("{{{{{keyword}}}}} is not supported")),
                _ => nodes.push(Node::Print(self.pipe(tokens)?)),
            }
        }
    }

    fn conditional(&mut self, tokens: Vec<Token>) -> Result<Node, String> {
        self.enter()?;
        let mut branches = Vec::new();
        let mut condition = self.pipe(tokens)?;
        let otherwise = loop {
            let (body, end) = self.block()?;
            branches.push((condition, body));
            match end {
                End::Done => break Vec::new(),
                End::Text => return Err("unexpected EOF: {{end}} is missing".to_owned()),
                End::Else(rest) => match rest.split_first() {
                    None => break self.last_block()?,
                    Some((Token::Word(word), rest)) if word == "if" => condition = self.pipe(trimmed(rest.to_vec()))?,
                    Some(_) => return Err("unexpected token in {{else}}".to_owned()),
                },
            }
        };
        self.depth -= 1;
        Ok(Node::If(branches, otherwise))
    }

    fn scoped(&mut self, keyword: &str, tokens: Vec<Token>) -> Result<Node, String> {
        self.enter()?;
        let pipe = self.pipe(tokens)?;
        let (body, end) = self.block()?;
        let otherwise = match end {
            End::Done => Vec::new(),
            End::Else(rest) if rest.is_empty() => self.last_block()?,
            End::Else(_) => return Err("unexpected token in {{else}}".to_owned()),
            End::Text => return Err("unexpected EOF: {{end}} is missing".to_owned()),
        };
        self.depth -= 1;
        Ok(if keyword == "with" { Node::With(pipe, body, otherwise) } else { Node::Range(pipe, body, otherwise) })
    }

    /// The block behind `{{else}}`.
    fn last_block(&mut self) -> Result<Vec<Node>, String> {
        match self.block()? {
            (nodes, End::Done) => Ok(nodes),
            (_, End::Else(_)) => Err("expected end; found {{else}}".to_owned()),
            (_, End::Text) => Err("unexpected EOF: {{end}} is missing".to_owned()),
        }
    }

    fn pipe(&mut self, tokens: Vec<Token>) -> Result<Pipe, String> {
        let mut cursor = Cursor { tokens, at: 0 };
        let pipe = self.pipe_of(&mut cursor)?;
        if cursor.peek().is_some() { Err("unexpected ) or token in action".to_owned()) } else { Ok(pipe) }
    }

    fn pipe_of(&mut self, cursor: &mut Cursor) -> Result<Pipe, String> {
        self.enter()?;
        let (variables, declares) = cursor.assignment();
        let mut commands = Vec::new();
        loop {
            let command = self.command(cursor)?;
            if command.is_empty() {
                return Err("missing value for command".to_owned());
            }
            let callable = matches!(command[0], Operand::Function(_) | Operand::Field(_) | Operand::Variable(..));
            if !commands.is_empty() && !callable {
                return Err("non executable command in pipeline".to_owned());
            }
            commands.push(command);
            cursor.skip_spaces();
            if cursor.peek() != Some(&Token::Pipe) {
                break;
            }
            cursor.at += 1;
        }
        self.depth -= 1;
        Ok(Pipe { variables, declares, commands })
    }

    fn command(&mut self, cursor: &mut Cursor) -> Result<Vec<Operand>, String> {
        let mut operands = Vec::new();
        loop {
            cursor.skip_spaces();
            match cursor.peek() {
                None | Some(Token::Pipe | Token::Close) => return Ok(operands),
                Some(_) => operands.push(self.operand(cursor)?),
            }
            if !matches!(cursor.peek(), None | Some(Token::Space | Token::Pipe | Token::Close)) {
                return Err("unexpected token in operand; missing space?".to_owned());
            }
        }
    }

    fn operand(&mut self, cursor: &mut Cursor) -> Result<Operand, String> {
        let Some(token) = cursor.next() else { return Err("missing operand".to_owned()) };
        Ok(match token {
            Token::Dot => Operand::Dot,
            Token::Text(text) => Operand::Text(text),
            Token::Int(n) => Operand::Int(n),
            Token::Float(x) => Operand::Float(x),
            Token::Field(name) => Operand::Field(cursor.fields(vec![name])),
            Token::Variable(name) => Operand::Variable(name, cursor.fields(Vec::new())),
            Token::Open => {
                let pipe = self.pipe_of(cursor)?;
                if cursor.next() != Some(Token::Close) {
                    return Err("unclosed left paren".to_owned());
                }
                Operand::Nested(Box::new(pipe), cursor.fields(Vec::new()))
            }
            Token::Word(word) => match word.as_str() {
                "true" | "false" => Operand::Bool(word == "true"),
                "nil" => Operand::Nil,
                _ => match functions::of_name(&word) {
                    Some(function) => Operand::Function(function),
                    None => return Err(format!("function {word:?} not defined")),
                },
            },
            other => return Err(format!("unexpected {other:?} in operand")),
        })
    }
}

fn trimmed(tokens: Vec<Token>) -> Vec<Token> {
    let inside = |token: &Token| *token != Token::Space;
    let first = tokens.iter().position(inside).unwrap_or(0);
    let last = tokens.iter().rposition(inside).map_or(0, |at| at + 1);
    tokens.get(first..last).unwrap_or(&[]).to_vec()
}

struct Cursor {
    tokens: Vec<Token>,
    at: usize,
}

impl Cursor {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn skip_spaces(&mut self) {
        while self.peek() == Some(&Token::Space) {
            self.at += 1;
        }
    }

    /// The fields that follow without a space.
    fn fields(&mut self, mut list: Vec<String>) -> Vec<String> {
        while let Some(Token::Field(name)) = self.peek() {
            list.push(name.clone());
            self.at += 1;
        }
        list
    }

    /// `$a, $b :=` or `$a =`, if the pipe begins so.
    fn assignment(&mut self) -> (Vec<String>, bool) {
        let start = self.at;
        let mut names = Vec::new();
        loop {
            self.skip_spaces();
            match self.next() {
                Some(Token::Variable(name)) => names.push(name),
                _ => break,
            }
            self.skip_spaces();
            match self.next() {
                Some(Token::Comma) if names.len() == 1 => {}
                Some(Token::Declare) => return (names, true),
                Some(Token::Assign) => return (names, false),
                _ => break,
            }
        }
        self.at = start;
        (Vec::new(), false)
    }
}

/// Adds the labels that nodes read.
pub fn add_needs(nodes: &[Node], needs: &mut Needs) {
    for node in nodes {
        match node {
            Node::Text(_) | Node::Break | Node::Continue => {}
            Node::Print(pipe) => pipe_needs(pipe, needs),
            Node::If(branches, otherwise) => {
                for (pipe, body) in branches {
                    pipe_needs(pipe, needs);
                    add_needs(body, needs);
                }
                add_needs(otherwise, needs);
            }
            Node::With(pipe, body, otherwise) | Node::Range(pipe, body, otherwise) => {
                pipe_needs(pipe, needs);
                add_needs(body, needs);
                add_needs(otherwise, needs);
            }
        }
    }
}

fn pipe_needs(pipe: &Pipe, needs: &mut Needs) {
    for operand in pipe.commands.iter().flatten() {
        match operand {
            Operand::Field(names) => names.iter().for_each(|name| needs.add(name)),
            Operand::Variable(name, fields) if name.is_empty() && !fields.is_empty() => needs.add(&fields[0]),
            Operand::Nested(pipe, _) => pipe_needs(pipe, needs),
            // The labels as a whole.
            Operand::Dot => *needs = Needs::All,
            Operand::Variable(name, _) if name.is_empty() => *needs = Needs::All,
            _ => {}
        }
    }
}
