//! Rules of retention as they are written: a list of maps, in a file or as one text of YAML in a variable.
//!
//! Owns: their keys and what they mean to the storage. Does not own: what the storage makes of them.

use serde::{Deserialize, Serialize};
use serde_yaml_ng::{Mapping, Value};
use storage::model::labels::METRIC_NAME;
use storage::model::matcher::{MatchOp, Matcher};
use storage::model::tenant::Tenant;
use storage::model::value::string_text;
use storage::retention::RetentionRule;
use storage::{Error, Signal};

use super::units::{Size, Span, parse_duration_ms};

/// The keys of a rule.
const KEYS: [&str; 5] = ["signal", "tenant", "match", "age", "bytes"];

/// One rule, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// metrics, logs or traces; all if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<String>,
    /// Of this tenant; of all if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// Tests on labels, on `__name__` and, for traces, on resource attributes.
    #[serde(rename = "match", default, skip_serializing_if = "Vec::is_empty")]
    matchers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

/// All rules, in the order of precedence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(pub Vec<Rule>);

impl Rules {
    /// Reads a list in YAML.
    pub fn parse(text: &str) -> Result<Self, String> {
        let list: Value = serde_yaml_ng::from_str(text).map_err(|error| format!("it is not YAML: {error}"))?;
        let list = match list {
            Value::Sequence(list) => list,
            Value::Null => Vec::new(),
            _ => {
                return Err(
                    "a list of rules such as [{signal: logs, match: ['app=\"x\"'], age: 3d}] is expected".into()
                );
            }
        };
        let rules: Vec<Rule> = list.into_iter().map(read_rule).collect::<Result<_, _>>()?;
        Ok(Self(rules))
    }

    /// The rules as one text that reads back.
    pub fn show(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// As the storage knows them. They were checked when they were read.
    pub fn policy(&self) -> Vec<RetentionRule> {
        self.0.iter().filter_map(|rule| rule.read().ok()).flatten().collect()
    }
}

fn read_rule(value: Value) -> Result<Rule, String> {
    let Value::Mapping(pairs) = value else { return Err(format!("a rule is a map of {}", KEYS.join(", "))) };
    let mut texts = Mapping::new();
    for (key, value) in pairs {
        let name = key.as_str().unwrap_or_default().to_owned();
        if !KEYS.contains(&name.as_str()) {
            return Err(super::Error::unknown("key of a rule", &name, KEYS.into_iter()).to_string());
        }
        let text = |value: Value| match value {
            Value::Number(number) => Value::String(number.to_string()),
            other => other,
        };
        texts.insert(key, text(value));
    }
    let rule: Rule = serde_yaml_ng::from_value(Value::Mapping(texts)).map_err(|error| error.to_string())?;
    rule.read()?;
    Ok(rule)
}

impl Rule {
    /// For the storage: one rule, or one for each signal if resource attributes are spelled unlike labels.
    fn read(&self) -> Result<Vec<RetentionRule>, String> {
        let signals: Vec<Signal> = match self.signal.as_deref() {
            None => Signal::ALL.to_vec(),
            Some(name) => {
                let signal = Signal::ALL.into_iter().find(|signal| signal.name() == name);
                vec![signal.ok_or_else(|| format!("the signal `{name}` is none of metrics, logs, traces"))?]
            }
        };
        let tenant = self.tenant.as_deref().map(Tenant::new).transpose().map_err(message)?;
        let span = |text: &str| {
            parse_duration_ms(text).ok_or_else(|| format!("the age `{text}` is no duration such as 10d or 12h"))
        };
        let age = self.age.as_deref().map(span).transpose()?.map(std::time::Duration::from_millis);
        let size = |text: &str| Size::parse(text).ok_or_else(|| format!("`{text}` is no size such as 10GiB"));
        let bytes = self.bytes.as_deref().map(size).transpose()?.map(|size| size.0);
        match (age, bytes) {
            (None, None) => return Err("a rule needs an `age` or `bytes`".into()),
            (_, Some(_)) if !self.matchers.is_empty() => {
                return Err("a rule with `bytes` cannot have `match`: whole dates go by size".into());
            }
            _ => {}
        }
        let rule = |signal: Signal| {
            let matchers = self.matchers.iter().map(|text| matcher(signal, text)).collect::<Result<_, _>>()?;
            Ok(RetentionRule { signal: Some(signal), tenant: tenant.clone(), matchers, age, bytes })
        };
        signals.into_iter().map(rule).collect()
    }
}

fn message(error: Error) -> String {
    error.message().to_owned()
}

/// Reads `name="value"`, `name=~"regex"` and so on; the quotes may be left out.
fn matcher(signal: Signal, text: &str) -> Result<Matcher, String> {
    const OPERATORS: [(&str, MatchOp); 4] =
        [("=~", MatchOp::Regex), ("!~", MatchOp::NotRegex), ("!=", MatchOp::NotEqual), ("=", MatchOp::Equal)];
    let wrong = || format!("`{text}` is no matcher such as app=\"x\" or env=~\"dev|test\"");
    let at = text.find(['=', '!']).ok_or_else(wrong)?;
    let (name, rest) = text.split_at(at);
    let (sign, op) = OPERATORS.into_iter().find(|(sign, _)| rest.starts_with(sign)).ok_or_else(wrong)?;
    let value = rest.get(sign.len()..).unwrap_or_default().trim();
    let value = match value.starts_with('"') {
        true => serde_json::from_str::<String>(value).map_err(|_| wrong())?,
        false => value.to_owned(),
    };
    let name = name.trim().trim_matches('"');
    if name.is_empty() {
        return Err(wrong());
    }
    // Attributes of resources are stored as typed texts, in which a text has quotes.
    let value = match (signal.spec().name == "traces", op) {
        (false, _) => value,
        (true, MatchOp::Equal | MatchOp::NotEqual) if value.is_empty() => value,
        (true, MatchOp::Equal | MatchOp::NotEqual) => string_text(&value),
        (true, MatchOp::Regex | MatchOp::NotRegex) => format!("\"(?:{value})\""),
    };
    if name == METRIC_NAME && signal != Signal::Metrics {
        return Err(format!("`{text}` names metrics, in a rule for {}", signal.name()));
    }
    Matcher::new(name, op, value).map_err(message)
}

/// The rules of the three plain ages, which come last.
pub fn plain(ages: [(Signal, Span); 3]) -> impl Iterator<Item = RetentionRule> {
    ages.into_iter().map(|(signal, age)| RetentionRule {
        signal: Some(signal),
        age: Some(age.0),
        ..RetentionRule::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_back_as_they_are_shown() {
        let text = r#"
            - {signal: logs, match: ['app="x y"', 'env=~"dev|test"'], age: 3d}
            - {signal: traces, match: [service.name=checkout], age: 60d}
            - {tenant: team-a, signal: logs, bytes: 100GiB}
            - {bytes: 1000}
        "#;
        let rules = Rules::parse(text).expect("reads");
        assert_eq!(Rules::parse(&rules.show()).expect("reads back"), rules);
        let policy = rules.policy();
        assert_eq!(policy.len(), 3 + 3, "the last is one for each signal");
        let shown = |at: usize| policy[at].matchers.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown(0), [r#"app="x y""#, r#"env=~"dev|test""#]);
        assert_eq!(shown(1), [r#"service.name="\"checkout\"""#]);
        assert_eq!((policy[2].bytes, policy[2].age), (Some(100 << 30), None));
        assert_eq!(policy[5].bytes, Some(1000));
        assert_eq!(Rules::parse("").expect("reads"), Rules::default());
    }

    #[test]
    fn wrong_rules_say_what_is_wrong() {
        for (text, part) in [
            ("[{signal: log, age: 1d}]", "the signal `log` is none of"),
            ("[{signals: logs, age: 1d}]", "unknown key of a rule `signals`; did you mean `signal`?"),
            ("[{signal: logs}]", "needs an `age` or `bytes`"),
            ("[{signal: logs, match: ['a=\"b\"'], bytes: 1GiB}]", "cannot have `match`"),
            ("[{signal: logs, match: [app], age: 1d}]", "`app` is no matcher"),
            ("[{signal: logs, match: ['a=~\"(\"'], age: 1d}]", "error parsing regexp"),
            ("[{signal: logs, match: ['__name__=\"x\"'], age: 1d}]", "names metrics"),
            ("[{age: soon}]", "`soon` is no duration"),
            ("[{tenant: a/b, age: 1d}]", "tenant id `a/b` is not valid"),
            ("{age: 1d}", "a list of rules"),
            ("[3d]", "a rule is a map"),
        ] {
            let error = Rules::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
