//! The table's place in a document: between two lines.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// The line before the table.
pub const BEGIN: &str = "<!-- results: begin -->";
/// The line behind it.
pub const END: &str = "<!-- results: end -->";

/// Puts `text` between the markers of a file, in the place of what is there.
///
/// # Errors
/// When the file cannot be read or written, or has no markers.
pub fn write(file: &Path, text: &str) -> Result<()> {
    let name = file.display();
    let old = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let Some(new) = replace(&old, text) else {
        bail!("{name} has no lines `{BEGIN}` and `{END}`: add them where the table should be");
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
    fn only_what_is_between_the_markers_changes() {
        let old = format!("# Title\n{BEGIN}\nold\n{END}\nmore\n");
        let new = format!("# Title\n{BEGIN}\nnew\n{END}\nmore\n");
        assert_eq!(replace(&old, "new\n"), Some(new.clone()));
        assert_eq!(replace(&new, "new\n"), Some(new));
        assert_eq!(replace("# Title\n", "new\n"), None);
    }
}
