//! A configuration in layers: a preset, a TOML file over it, single settings over both.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{RunConfig, RunConfigError};
use crate::presets::preset;

/// Where the settings of a run come from.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Overlay {
    /// The run's configuration
    #[arg(long)]
    pub config: PathBuf,
    /// A size whose shape and optimisation stand where the configuration names none: demo, 160m, 1b, 7b, 13b, 34b
    #[arg(long)]
    pub preset: Option<String>,
    /// A setting over the configuration, such as train.learning_rate=1e-3; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

impl Overlay {
    /// Puts the layers together, and checks the result before anything is read or allocated.
    ///
    /// # Errors
    /// Names the file, the setting or the key, and what was expected.
    pub fn read(&self) -> Result<RunConfig, RunConfigError> {
        let mut table = match &self.preset {
            Some(name) => preset(name).map_err(RunConfigError::Preset)?.table(),
            None => Table::new(),
        };
        merge(&mut table, read_table(&self.config)?);
        let config: RunConfig = apply(table, &self.settings)?;
        config.validate()?;
        Ok(config)
    }
}

/// Reads a TOML file.
///
/// # Errors
/// Names the file, the line and the column.
pub fn read_table(file: &Path) -> Result<Table, RunConfigError> {
    let text = fs::read_to_string(file).map_err(|source| RunConfigError::Read { file: file.to_owned(), source })?;
    text.parse().map_err(|e| RunConfigError::Toml { file: file.to_owned(), source: Box::new(e) })
}

/// Puts single settings over a table, and reads the whole.
///
/// # Errors
/// Names the setting, or the key that is wrong in the whole.
pub fn apply<T: DeserializeOwned>(mut table: Table, settings: &[String]) -> Result<T, RunConfigError> {
    for given in settings {
        set(&mut table, given).map_err(|reason| RunConfigError::Set { given: given.clone(), reason })?;
    }
    table.try_into().map_err(|e| RunConfigError::Merged(Box::new(e)))
}

/// Puts `over` on `base`: tables are joined, everything else is replaced.
fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn set(table: &mut Table, given: &str) -> Result<(), String> {
    let (key, value) = given.split_once('=').ok_or("there is no '='")?;
    // As TOML reads it; a word without quotes is a string.
    let value: Value = format!("v = {value}")
        .parse::<Table>()
        .ok()
        .and_then(|mut line| line.remove("v").filter(|_| line.is_empty()))
        .unwrap_or_else(|| Value::String(value.trim().to_owned()));
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts.pop().filter(|last| !last.is_empty()).ok_or("there is no key before '='")?;
    let mut place = table;
    for part in parts {
        let section = place.entry(part).or_insert_with(|| Value::Table(Table::new()));
        place = section.as_table_mut().ok_or_else(|| format!("{part} is no section"))?;
    }
    // Whole numbers are numbers too: 1 where 1.0 stands.
    let value = match (place.get(last), value) {
        (Some(Value::Float(_)), Value::Integer(whole)) => Value::Float(whole as f64),
        (_, value) => value,
    };
    place.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_layers_win_and_tables_are_joined() {
        let mut base: Table = "a = 1\n[t]\nx = 1.0\ny = 2".parse().unwrap();
        merge(&mut base, "[t]\ny = 3\n[u]\nz = \"w\"".parse().unwrap());
        set(&mut base, "t.x=2").unwrap();
        set(&mut base, "u.z = plain").unwrap();
        set(&mut base, "u.new.list=[1, 2]").unwrap();
        let want = "a = 1\n[t]\nx = 2.0\ny = 3\n[u]\nz = \"plain\"\nnew = {list = [1, 2]}";
        assert_eq!(base, want.parse().unwrap());
        for (given, words) in [("t.x", "no '='"), ("=3", "no key"), ("a.b=1", "a is no section")] {
            assert!(set(&mut base, given).unwrap_err().contains(words), "{given}");
        }
    }
}
