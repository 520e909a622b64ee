//! `safelmm plugin describe`.

use std::fs;
use std::io::{self, Write};

use safelmm_plugins::host::{Description, LoadError};

use super::{DescribeArgs, Opened, PluginFailure};
use crate::config::Source;

/// Prints what a component's section says, or asks the component and writes the section.
pub(super) fn describe(args: &DescribeArgs) -> Result<(), PluginFailure> {
    let opened = Opened::of(&args.source)?;
    let bytes = opened.bytes()?;
    let wrong = |error| opened.failed(LoadError::Section(error));
    if !args.write {
        let Some(description) = Description::read(&bytes).map_err(wrong)? else {
            return Err(PluginFailure::NoSection(opened.source));
        };
        let text = serde_json::to_string_pretty(&description).map_err(io::Error::from)?;
        return Ok(writeln!(io::stdout().lock(), "{text}")?);
    }
    let Source::File(path) = &opened.source else {
        return Err(PluginFailure::NoFile(opened.source));
    };
    // What its section says now may be out of date.
    let component = opened.component_of(&Description::erase(&bytes).map_err(wrong)?)?;
    let written = Description::of(&component).write(&bytes).map_err(wrong)?;
    let beside = path.with_extension("wasm.part");
    let done = fs::write(&beside, written).and_then(|()| fs::rename(&beside, path));
    done.map_err(|source| PluginFailure::Write { path: path.clone(), source })
}
