//! The whole configuration as a file, with every key at its default and said what it is for.

use super::keys::{SECTIONS, keys};
use super::{Config, FILE};

const COLUMNS: usize = 80;

/// A file that sets nothing: every key is there with its unit, default and reason, behind a `#`.
pub fn example() -> String {
    let defaults = Config::default();
    let mut text = comment(&format!(
        "Configuration of bifrost. Save it as {FILE} where bifrost is started, or name it with --config or \
         BIFROST_CONFIG. Every key is shown at its default: take the # away from what you change."
    ));
    text += "#\n";
    text += &comment(
        "BIFROST__SECTION__KEY in the environment goes before the file, and a flag before both. Times are a whole number \
         and ms, s, m or h. Sizes are bytes, or a whole number and KiB, MiB or GiB.",
    );
    for (section, about) in SECTIONS {
        text += "\n";
        text += &comment(about);
        text += &format!("[{section}]\n");
        for key in keys().filter(|key| key.name.section == *section) {
            text += "\n";
            text += &comment(key.doc);
            text += &format!("#{} = {}\n", key.name.key, defaults.value(key));
        }
    }
    text
}

/// A text as lines of comment.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines += &line;
            lines += "\n";
            line = String::from("#");
        }
        line.push(' ');
        line += word;
    }
    lines + &line + "\n"
}
