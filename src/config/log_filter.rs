//! The log filter: `--log`, `logging.console`, or the default.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::error::ConfigError;
use super::error_text::chain;
use super::setting::Setting;

/// The log filter if nothing is configured.
const DEFAULT: &str = "info";

/// Returns the log filter: that of the command line, of the files, or the default.
///
/// # Errors
/// [`ConfigError::LogFilter`] if it is not one.
pub(super) fn parse(
    option: Option<&str>,
    console: Option<String>,
    console_setting: Setting,
) -> Result<String, ConfigError> {
    let (filter, setting) = match (option, console) {
        (Some(filter), _) => (filter.to_owned(), Setting::for_option("--log")),
        (None, Some(filter)) => (filter, console_setting),
        (None, None) => return Ok(DEFAULT.to_owned()),
    };
    let directives = filter.split(',').map(str::trim);
    let directives: Vec<&str> = directives.filter(|d| !d.is_empty()).collect();
    if directives.is_empty() {
        return Ok("off".to_owned());
    }
    // `EnvFilter` would read blanks as part of a target's name.
    let normalized = directives.join(",");
    let problem = directives.iter().find_map(|d| find_bad_level(d));
    let problem = problem.or_else(|| {
        EnvFilter::try_new(&normalized)
            .err()
            .map(|error| chain(&error))
    });
    match problem {
        None => Ok(normalized),
        Some(problem) => Err(ConfigError::LogFilter {
            location: setting.location,
            key: setting.key.to_owned(),
            filter,
            problem,
        }),
    }
}

/// Returns the problem of a directive that should be a level and is not.
///
/// [`EnvFilter`] would take such a word for a target: it would log all of that target, and nothing
/// else.
fn find_bad_level(directive: &str) -> Option<String> {
    if directive.contains(['=', '[']) || directive.parse::<LevelFilter>().is_ok() {
        return None;
    }
    Some(match directive.to_ascii_lowercase().as_str() {
        "notice" => "notice is C tor's level, here it is info".to_owned(),
        "err" => "err is C tor's level, here it is error".to_owned(),
        _ => format!("{directive:?} is not a level"),
    })
}
