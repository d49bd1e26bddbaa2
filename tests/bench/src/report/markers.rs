//! Writes the table into a document, between two marker lines.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// The marker line before the table.
pub const BEGIN: &str = "<!-- results: begin -->";
/// The marker line after the table.
pub const END: &str = "<!-- results: end -->";

/// Replaces the text between the markers of a file.
///
/// # Errors
/// If the file cannot be read or written, or does not contain both markers.
pub fn write(file: &Path, text: &str) -> Result<()> {
    let name = file.display();
    let old = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let Some(new) = replace(&old, text) else {
        bail!(
            "{name} does not contain the lines `{BEGIN}` and `{END}`: add them where the table belongs"
        );
    };
    fs::write(file, new).with_context(|| format!("cannot write {name}"))
}

fn replace(old: &str, text: &str) -> Option<String> {
    let (before, rest) = old.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!(
        "{before}{BEGIN}\n{}\n{END}{after}",
        text.trim_end()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_text_between_the_markers_changes() {
        let old = format!("# Title\n{BEGIN}\nold\n{END}\nmore\n");
        let new = format!("# Title\n{BEGIN}\nnew\n{END}\nmore\n");
        assert_eq!(replace(&old, "new\n"), Some(new.clone()));
        assert_eq!(replace(&new, "new\n"), Some(new));
        assert_eq!(replace("# Title\n", "new\n"), None);
    }
}
