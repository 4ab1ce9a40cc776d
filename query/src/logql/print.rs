//! Syntax tree → text that parses back, as `format_query` answers it.
//!
//! Owns: the one-line form, and the form broken over lines for what is longer than [`LINE_MAX`].

use std::fmt::{self, Write as _};

use super::ast::{
    Assignment, AssignmentSource, BinaryExpr, Cardinality, Expr, Extraction, Grouping, LabelFilter, LabelPick,
    LabelTest, LineNeedle, LogExpr, MetricExpr, RangeAggregation, Stage, StageKind, Unwrap, VectorAggregation,
};
use super::units::{format_bytes, format_duration, format_float};

/// The longest line that stays in one piece.
pub const LINE_MAX: usize = 100;

/// The canonical text: one line if it fits, else broken and indented.
pub fn pretty(expr: &Expr) -> String {
    let mut out = String::new();
    match expr {
        Expr::Log(log) => pretty_log(&mut out, log, 0),
        Expr::Metric(metric) => pretty_metric(&mut out, metric, 0),
    }
    out
}

fn indent(out: &mut String, level: usize) {
    for _ in 0..level {
        out.push_str("  ");
    }
}

/// Writes `node` in one line if it fits, and says whether it did.
fn fits(out: &mut String, node: &impl fmt::Display, level: usize) -> bool {
    let line = node.to_string();
    let fits = line.len() <= LINE_MAX;
    if fits {
        indent(out, level);
        out.push_str(&line);
    }
    fits
}

fn pretty_log(out: &mut String, log: &LogExpr, level: usize) {
    if fits(out, log, level) {
        return;
    }
    indent(out, level);
    out.push_str(&matchers_text(&log.matchers));
    for stage in &log.stages {
        out.push('\n');
        indent(out, level + 1);
        out.push_str(&stage.to_string());
    }
}

fn pretty_metric(out: &mut String, metric: &MetricExpr, level: usize) {
    if fits(out, metric, level) {
        return;
    }
    match metric {
        MetricExpr::Range(node) => pretty_range(out, node, level),
        MetricExpr::Vector(node) => {
            indent(out, level);
            out.push_str(node.op.name());
            if let Some(grouping) = &node.grouping {
                let _ = write!(out, " {grouping}");
            }
            out.push_str("(\n");
            if let Some(k) = node.k {
                indent(out, level + 1);
                let _ = writeln!(out, "{k},");
            }
            pretty_metric(out, &node.operand, level + 1);
            out.push('\n');
            indent(out, level);
            out.push(')');
        }
        MetricExpr::Binary(node) => {
            indent(out, level);
            out.push_str("(\n");
            pretty_metric(out, &node.left, level + 1);
            out.push('\n');
            indent(out, level);
            let _ = writeln!(out, "{}", operator_text(node));
            pretty_metric(out, &node.right, level + 1);
            out.push('\n');
            indent(out, level);
            out.push(')');
        }
        MetricExpr::LabelReplace(node) => {
            indent(out, level);
            out.push_str("label_replace(\n");
            pretty_metric(out, &node.operand, level + 1);
            for text in [&node.destination, &node.replacement, &node.source, &node.regex] {
                out.push_str(",\n");
                indent(out, level + 1);
                out.push_str(&quote(text));
            }
            out.push('\n');
            indent(out, level);
            out.push(')');
        }
        MetricExpr::Literal(..) | MetricExpr::Constant(..) => {
            indent(out, level);
            let _ = write!(out, "{metric}");
        }
    }
}

fn pretty_range(out: &mut String, node: &RangeAggregation, level: usize) {
    indent(out, level);
    out.push_str(node.op.name());
    out.push_str("(\n");
    if let Some(parameter) = node.parameter {
        indent(out, level + 1);
        let _ = writeln!(out, "{},", format_float(parameter));
    }
    pretty_log(out, &node.log, level + 1);
    if let Some(unwrap) = &node.unwrap {
        out.push('\n');
        indent(out, level + 2);
        out.push_str(unwrap.to_string().trim_start());
    }
    let _ = write!(out, " {}", window_text(node));
    out.push('\n');
    indent(out, level);
    out.push(')');
    if let Some(grouping) = &node.grouping {
        let _ = write!(out, " {grouping}");
    }
}

fn window_text(node: &RangeAggregation) -> String {
    let mut text = format!("[{}]", format_duration(node.range_ns));
    if node.offset_ns != 0 {
        let _ = write!(text, " offset {}", format_duration(node.offset_ns));
    }
    text
}

fn operator_text(node: &BinaryExpr) -> String {
    let mut text = node.op.name().to_owned();
    if node.returns_bool {
        text.push_str(" bool");
    }
    if let Some(matching) = &node.matching {
        let word = if matching.on { "on" } else { "ignoring" };
        let _ = write!(text, " {word} ({})", matching.labels.join(","));
        let group = match matching.cardinality {
            Cardinality::OneToOne => return text,
            Cardinality::ManyToOne => "group_left",
            Cardinality::OneToMany => "group_right",
        };
        let _ = write!(text, " {group}");
        if !matching.include.is_empty() {
            let _ = write!(text, " ({})", matching.include.join(","));
        }
    }
    text
}

fn matchers_text(matchers: &[LabelTest]) -> String {
    format!("{{{}}}", joined(matchers, ", "))
}

fn joined<T: fmt::Display>(list: &[T], separator: &str) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

/// A double-quoted string with the escapes of Go.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' || c == '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(log) => log.fmt(f),
            Self::Metric(metric) => metric.fmt(f),
        }
    }
}

impl fmt::Display for LabelTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.name, self.op, quote(&self.value))
    }
}

impl fmt::Display for LogExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&matchers_text(&self.matchers))?;
        self.stages.iter().try_for_each(|stage| write!(f, " {stage}"))
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            StageKind::LineFilter(op, needles) => write!(f, "{} {}", op.sign(), joined(needles, " or ")),
            StageKind::Json(list) => write!(f, "| json{}", extractions_text(list)),
            StageKind::Logfmt { strict, keep_empty, extractions } => {
                f.write_str("| logfmt")?;
                f.write_str(if *strict { " --strict" } else { "" })?;
                f.write_str(if *keep_empty { " --keep-empty" } else { "" })?;
                f.write_str(&extractions_text(extractions))
            }
            StageKind::Regexp(text) => write!(f, "| regexp {}", quote(text)),
            StageKind::Pattern(text) => write!(f, "| pattern {}", quote(text)),
            StageKind::Unpack => f.write_str("| unpack"),
            StageKind::LabelFilter(filter) => write!(f, "| {filter}"),
            StageKind::LineFormat(text) => write!(f, "| line_format {}", quote(text)),
            StageKind::LabelFormat(list) => write!(f, "| label_format {}", joined(list, ",")),
            StageKind::Decolorize => f.write_str("| decolorize"),
            StageKind::Drop(list) => write!(f, "| drop {}", joined(list, ",")),
            StageKind::Keep(list) => write!(f, "| keep {}", joined(list, ",")),
        }
    }
}

fn extractions_text(list: &[Extraction]) -> String {
    match list.is_empty() {
        true => String::new(),
        false => format!(" {}", joined(list, ",")),
    }
}

impl fmt::Display for Extraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, quote(&self.path))
    }
}

impl fmt::Display for LineNeedle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quote(text)),
            Self::Ip(set) => write!(f, "ip({})", quote(set)),
        }
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            AssignmentSource::Label(label) => write!(f, "{}={label}", self.name),
            AssignmentSource::Template(template) => write!(f, "{}={}", self.name, quote(template)),
        }
    }
}

impl fmt::Display for LabelPick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Test(test) => test.fmt(f),
        }
    }
}

impl fmt::Display for LabelFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (list, word) = match self {
            Self::And(list) => (list, ","),
            Self::Or(list) => (list, "or"),
            Self::Text(test) => return test.fmt(f),
            Self::Number(name, op, value) => return write!(f, "{name}{}{}", op.sign(), format_float(*value)),
            Self::Duration(name, op, ns) => return write!(f, "{name}{}{}", op.sign(), format_duration(*ns)),
            Self::Bytes(name, op, bytes) => return write!(f, "{name}{}{}", op.sign(), format_bytes(*bytes)),
            Self::Ip(name, negated, set) => {
                return write!(f, "{name}{}ip({})", if *negated { "!=" } else { "=" }, quote(set));
            }
        };
        // Two by two from the left, as the operators bind.
        for _ in 1..list.len() {
            f.write_str("( ")?;
        }
        for (i, filter) in list.iter().enumerate() {
            if i == 0 {
                write!(f, "{filter}")?;
            } else {
                write!(f, " {word} {filter} )")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Unwrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.conversion.name() {
            Some(name) => write!(f, " | unwrap {name}({})", self.label)?,
            None => write!(f, " | unwrap {}", self.label)?,
        }
        self.filters.iter().try_for_each(|filter| write!(f, " | {filter}"))
    }
}

impl fmt::Display for Grouping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.without { "without" } else { "by" };
        write!(f, "{word} ({})", self.labels.join(","))
    }
}

impl fmt::Display for MetricExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(node) => node.fmt(f),
            Self::Vector(node) => node.fmt(f),
            Self::Binary(node) => write!(f, "({} {} {})", node.left, operator_text(node), node.right),
            Self::LabelReplace(node) => write!(
                f,
                "label_replace({},{},{},{},{})",
                node.operand,
                quote(&node.destination),
                quote(&node.replacement),
                quote(&node.source),
                quote(&node.regex)
            ),
            Self::Literal(value, _) => f.write_str(&format_float(*value)),
            Self::Constant(value, _) => write!(f, "vector({value:.6})"),
        }
    }
}

impl fmt::Display for RangeAggregation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.op.name())?;
        if let Some(parameter) = self.parameter {
            write!(f, "{},", format_float(parameter))?;
        }
        write!(f, "{}", self.log)?;
        if let Some(unwrap) = &self.unwrap {
            write!(f, "{unwrap}")?;
        }
        write!(f, "{})", window_text(self))?;
        self.grouping.iter().try_for_each(|grouping| write!(f, " {grouping}"))
    }
}

impl fmt::Display for VectorAggregation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.op.name())?;
        if let Some(grouping) = &self.grouping {
            write!(f, " {grouping}")?;
        }
        match self.k {
            Some(k) => write!(f, "({k},{})", self.operand),
            None => write!(f, "({})", self.operand),
        }
    }
}
