//! Pipelines: line filters and the stages behind `|`.

use crate::error::{Result, SourceSpan};
use crate::logql::ast::{
    Assignment, AssignmentSource, CompareOp, Conversion, Extraction, LabelFilter, LabelPick, LineNeedle, LineOp, Stage,
    StageKind, Unwrap,
};
use crate::logql::lexer::{self, Token};

use super::Parser;

impl Parser<'_> {
    /// The next stage; `None` where the pipeline ends (also before `| unwrap`, which its caller reads).
    pub(super) fn stage(&mut self) -> Result<Option<Stage>> {
        let start = self.here().start;
        let kind = match self.peek() {
            Token::Sign("|") => {
                if matches!(self.peek_after(), Token::Word(word) if word == "unwrap") {
                    return Ok(None);
                }
                self.advance();
                self.piped()?
            }
            Token::Sign(sign) => match LineOp::of_sign(sign) {
                Some(op) => {
                    self.advance();
                    self.line_filter(op)?
                }
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(Some(Stage { kind, span: self.span_from(start) }))
    }

    fn line_filter(&mut self, op: LineOp) -> Result<StageKind> {
        let mut needles = vec![self.needle(op)?];
        while self.take_word("or") {
            needles.push(self.needle(op)?);
        }
        Ok(StageKind::LineFilter(op, needles))
    }

    fn needle(&mut self, op: LineOp) -> Result<LineNeedle> {
        match self.peek() {
            Token::Text(text) => {
                let text = text.clone();
                self.advance();
                Ok(LineNeedle::Text(text))
            }
            Token::Word(word) if word == "ip" => {
                let place = self.here();
                let set = self.ip_call()?;
                if !matches!(op, LineOp::Contains | LineOp::NotContains) {
                    let message = format!("ip: unknown operator {} for an address filter", op.sign());
                    return Err(lexer::semantic_error(place, message));
                }
                Ok(LineNeedle::Ip(set))
            }
            _ => Err(self.unexpected("STRING or ip")),
        }
    }

    /// `ip("…")`
    fn ip_call(&mut self) -> Result<String> {
        self.advance();
        self.expect_sign("(")?;
        let set = self.expect_text()?;
        self.expect_sign(")")?;
        Ok(set)
    }

    fn piped(&mut self) -> Result<StageKind> {
        let Token::Word(word) = self.peek() else { return Ok(StageKind::LabelFilter(self.label_filter()?)) };
        let word = word.clone();
        if !STAGE_WORDS.contains(&word.as_str()) {
            return Ok(StageKind::LabelFilter(self.label_filter()?));
        }
        self.advance();
        Ok(match word.as_str() {
            "json" => StageKind::Json(self.extractions()?),
            "logfmt" => self.logfmt()?,
            "regexp" => StageKind::Regexp(self.expect_text()?),
            "pattern" => StageKind::Pattern(self.expect_text()?),
            "line_format" => StageKind::LineFormat(self.expect_text()?),
            "label_format" => StageKind::LabelFormat(self.assignments()?),
            "drop" => StageKind::Drop(self.picks()?),
            "keep" => StageKind::Keep(self.picks()?),
            "unpack" => StageKind::Unpack,
            _ => StageKind::Decolorize,
        })
    }

    fn logfmt(&mut self) -> Result<StageKind> {
        let (mut strict, mut keep_empty) = (false, false);
        while let Token::Flag(flag) = self.peek() {
            match flag.as_str() {
                "strict" => strict = true,
                "keep-empty" => keep_empty = true,
                _ => {
                    let message = format!("syntax error: unknown parser flag --{flag}");
                    return Err(lexer::error_at(self.text, self.here(), &message));
                }
            }
            self.advance();
        }
        Ok(StageKind::Logfmt { strict, keep_empty, extractions: self.extractions()? })
    }

    /// `a, b="path"`, or nothing.
    fn extractions(&mut self) -> Result<Vec<Extraction>> {
        let mut list = Vec::new();
        if !matches!(self.peek(), Token::Word(_)) {
            return Ok(list);
        }
        loop {
            let name = self.expect_name()?;
            let path = if self.take_sign("=") { self.expect_text()? } else { name.clone() };
            list.push(Extraction { name, path });
            if !self.take_sign(",") {
                return Ok(list);
            }
        }
    }

    fn assignments(&mut self) -> Result<Vec<Assignment>> {
        let mut list: Vec<Assignment> = Vec::new();
        loop {
            let place = self.here();
            let name = self.expect_name()?;
            self.expect_sign("=")?;
            let source = match self.peek() {
                Token::Word(word) => AssignmentSource::Label(word.clone()),
                Token::Text(text) => AssignmentSource::Template(text.clone()),
                _ => return Err(self.unexpected("IDENTIFIER or STRING")),
            };
            self.advance();
            check_destination(&list, &name, place)?;
            list.push(Assignment { name, source });
            if !self.take_sign(",") {
                return Ok(list);
            }
        }
    }

    fn picks(&mut self) -> Result<Vec<LabelPick>> {
        let mut list = Vec::new();
        loop {
            let start = self.here().start;
            let name = self.expect_name()?;
            list.push(match self.match_op() {
                Some(op) => {
                    self.advance();
                    let value = self.expect_text()?;
                    LabelPick::Test(crate::logql::ast::LabelTest { name, op, value, span: self.span_from(start) })
                }
                None => LabelPick::Name(name),
            });
            if !self.take_sign(",") {
                return Ok(list);
            }
        }
    }

    /// `a="b" and c > 5 or d = ip("…")`
    pub(super) fn label_filter(&mut self) -> Result<LabelFilter> {
        self.enter()?;
        let mut alternatives = vec![self.label_filter_all()?];
        while self.take_word("or") {
            alternatives.push(self.label_filter_all()?);
        }
        self.leave(1);
        Ok(only_or(alternatives, LabelFilter::Or))
    }

    fn label_filter_all(&mut self) -> Result<LabelFilter> {
        let mut list = vec![self.label_filter_one()?];
        loop {
            let joined = self.take_word("and") || self.take_sign(",");
            let neighbour = matches!(self.peek(), Token::Word(word) if word != "or") || self.at_sign("(");
            if !joined && !neighbour {
                return Ok(only_or(list, LabelFilter::And));
            }
            list.push(self.label_filter_one()?);
        }
    }

    fn label_filter_one(&mut self) -> Result<LabelFilter> {
        if self.take_sign("(") {
            let inner = self.label_filter()?;
            self.expect_sign(")")?;
            return Ok(inner);
        }
        let start = self.here().start;
        let name = self.expect_name()?;
        let text_op = self.match_op();
        let Token::Sign(sign) = *self.peek() else { return Err(self.unexpected("a comparison operator")) };
        let number_op = CompareOp::of_sign(sign);
        if text_op.is_none() && number_op.is_none() {
            return Err(self.unexpected("a comparison operator"));
        }
        self.advance();
        if let (Some(op), Token::Text(value)) = (text_op, self.peek()) {
            let value = value.clone();
            self.advance();
            let span = self.span_from(start);
            return Ok(LabelFilter::Text(crate::logql::ast::LabelTest { name, op, value, span }));
        }
        if let (Some(op @ (CompareOp::Equal | CompareOp::NotEqual)), true) = (number_op, self.at_word("ip"))
            && sign != "=="
        {
            let set = self.ip_call()?;
            return Ok(LabelFilter::Ip(name, op == CompareOp::NotEqual, set));
        }
        match number_op {
            Some(op) => self.compared(name, op, text_op.is_some()),
            None => Err(self.unexpected("STRING")),
        }
    }

    /// The right side of a comparison with a number, a duration or a size.
    fn compared(&mut self, name: String, op: CompareOp, text_possible: bool) -> Result<LabelFilter> {
        let negative = self.at_sign("-");
        if negative || self.at_sign("+") {
            self.advance();
        }
        let filter = match *self.peek() {
            Token::Number(n) => LabelFilter::Number(name, op, if negative { -n } else { n }),
            Token::Duration(ns) => LabelFilter::Duration(name, op, if negative { -ns } else { ns }),
            Token::Bytes(bytes) if !negative => LabelFilter::Bytes(name, op, bytes),
            _ if text_possible => return Err(self.unexpected("STRING, NUMBER, DURATION, BYTES or ip")),
            _ => return Err(self.unexpected("NUMBER, DURATION or BYTES")),
        };
        self.advance();
        Ok(filter)
    }

    /// `| unwrap conversion(label) | filter …`
    pub(super) fn unwrap(&mut self) -> Result<Unwrap> {
        let start = self.here().start;
        self.advance();
        self.advance();
        let place = self.here();
        let word = self.expect_name()?;
        let (label, conversion) = if self.take_sign("(") {
            let conversion = match word.as_str() {
                "duration" => Conversion::Duration,
                "duration_seconds" => Conversion::DurationSeconds,
                "bytes" => Conversion::Bytes,
                _ => {
                    let message =
                        "syntax error: unexpected IDENTIFIER, expecting bytes or duration or duration_seconds";
                    return Err(lexer::error_at(self.text, place, message));
                }
            };
            let label = self.expect_name()?;
            self.expect_sign(")")?;
            (label, conversion)
        } else {
            (word, Conversion::Number)
        };
        let mut filters = Vec::new();
        while self.at_sign("|") {
            self.advance();
            if matches!(self.peek(), Token::Word(word) if word == "unwrap" || STAGE_WORDS.contains(&word.as_str())) {
                return Err(self.unexpected("a label filter"));
            }
            filters.push(self.label_filter()?);
        }
        Ok(Unwrap { label, conversion, filters, span: self.span_from(start) })
    }
}

/// Words that begin a stage; any other word behind `|` is a label.
const STAGE_WORDS: [&str; 10] =
    ["json", "logfmt", "regexp", "pattern", "unpack", "line_format", "label_format", "decolorize", "drop", "keep"];

fn check_destination(list: &[Assignment], name: &str, place: SourceSpan) -> Result<()> {
    if name == "__error__" {
        return Err(lexer::semantic_error(place, format!("{name} cannot be formatted")));
    }
    if list.iter().any(|assignment| assignment.name == name) {
        let message = format!("multiple label name '{name}' not allowed in a single format operation");
        return Err(lexer::semantic_error(place, message));
    }
    Ok(())
}

/// The only filter of a list, or all of them joined.
fn only_or(mut list: Vec<LabelFilter>, join: fn(Vec<LabelFilter>) -> LabelFilter) -> LabelFilter {
    match (list.len(), list.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            list.extend(last);
            join(list)
        }
    }
}
