//! Where settings come from: a YAML file, the environment, flags; all become pairs of a dotted key and a value.
//!
//! Owns: flattening and the names of variables. Does not own: the known keys (`settings`).

use std::path::Path;

use serde_yaml_ng::Value;

use super::Error;
use super::settings::SETTINGS;

/// What the names of our environment variables begin with.
pub const VARIABLE_PREFIX: &str = "TERCET_";
/// Read by the command line: it names the file, so it is no key in it.
const VARIABLE_OF_THE_FILE: &str = "TERCET_CONFIG";
/// How deep sections may nest in a file; ours have one level.
const DEPTH_MAX: usize = 4;

/// A value as a source gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// One text.
    Text(String),
    /// A list, which only YAML can spell; elsewhere commas separate.
    List(Vec<String>),
}

/// The variables whose names begin with [`VARIABLE_PREFIX`].
#[derive(Clone, Debug, Default)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    /// Those of this process; values that are no UTF-8 are ignored with their names.
    pub fn of_process() -> Self {
        let ours =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::new(ours)
    }

    /// Those of `variables` that are ours, by name.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut list: Vec<_> = variables
            .into_iter()
            .filter(|(name, _)| {
                name.starts_with(VARIABLE_PREFIX) && name != VARIABLE_OF_THE_FILE && !is_service_link(name)
            })
            .collect();
        list.sort();
        Self(list)
    }

    /// As keys and values.
    pub fn settings(&self) -> Result<Vec<(String, Raw)>, Error> {
        self.0.iter().map(|(name, value)| Ok((key_of_variable(name)?, Raw::Text(value.clone())))).collect()
    }
}

/// Whether Kubernetes sets the variable `name` in every pod beside a service called `tercet`.
fn is_service_link(name: &str) -> bool {
    let rest = name.strip_prefix(VARIABLE_PREFIX).unwrap_or("");
    rest == "PORT" || rest == "SERVICE_HOST" || rest.starts_with("SERVICE_PORT") || {
        let port = rest.strip_prefix("PORT_").unwrap_or("");
        port.starts_with(|c: char| c.is_ascii_digit())
    }
}

/// The name of the variable for `key`.
pub fn variable(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

fn key_of_variable(name: &str) -> Result<String, Error> {
    SETTINGS.iter().find(|setting| variable(setting.key) == name).map(|setting| setting.key.to_owned()).ok_or_else(
        || {
            let known: Vec<String> = SETTINGS.iter().map(|setting| variable(setting.key)).collect();
            Error::unknown("environment variable", name, known.iter().map(String::as_str))
        },
    )
}

/// The settings of a YAML file.
pub fn read_file(path: &Path) -> Result<Vec<(String, Raw)>, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::new(format!("the configuration file {} cannot be read: {e}", path.display())))?;
    parse_yaml(&text).map_err(|e| Error::new(format!("{}: {e}", path.display())))
}

/// The settings of a YAML text.
pub fn parse_yaml(text: &str) -> Result<Vec<(String, Raw)>, Error> {
    let value: Value = serde_yaml_ng::from_str(text).map_err(|e| Error::new(format!("this is not YAML: {e}")))?;
    let mut settings = Vec::new();
    flatten("", &value, 0, &mut settings)?;
    Ok(settings)
}

fn flatten(key: &str, value: &Value, depth: usize, out: &mut Vec<(String, Raw)>) -> Result<(), Error> {
    match value {
        Value::Mapping(pairs) if depth <= DEPTH_MAX => {
            for (name, value) in pairs {
                let Some(name) = name.as_str() else {
                    return Err(Error::new(format!("a key below `{key}` is not a text: write it in quotes")));
                };
                let key = if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
                flatten(&key, value, depth + 1, out)?;
            }
        }
        // An empty file or an empty section sets nothing.
        Value::Null => {}
        // A list of maps is one value, which its setting reads: JSON is YAML.
        Value::Sequence(list) if !key.is_empty() && list.iter().any(Value::is_mapping) => {
            let text = serde_json::to_string(value).map_err(|e| Error::new(format!("`{key}` cannot be read: {e}")))?;
            out.push((key.to_owned(), Raw::Text(text)));
        }
        Value::Sequence(list) if !key.is_empty() => {
            let list = list.iter().map(|item| scalar(key, item)).collect::<Result<_, _>>()?;
            out.push((key.to_owned(), Raw::List(list)));
        }
        _ if key.is_empty() => {
            return Err(Error::new("the file must be a map of keys to values, such as `http: 127.0.0.1:9090`"));
        }
        other => out.push((key.to_owned(), Raw::Text(scalar(key, other)?))),
    }
    Ok(())
}

fn scalar(key: &str, value: &Value) -> Result<String, Error> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(value) => Ok(value.to_string()),
        _ => Err(Error::new(format!("`{key}` must be a single value"))),
    }
}
