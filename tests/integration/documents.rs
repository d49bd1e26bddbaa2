//! The documents: the targets of links and the paths in code exist, and the README stays short.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// The maximum length of the README in lines. Details belong in `docs`.
const MAX_README_LINES: usize = 150;
/// The folders whose paths have to exist when they occur in code.
const FOLDERS: [&str; 4] = ["src/", "tests/", "scripts/", "docs/"];

/// The parts of a Markdown document that are checked.
#[derive(Default)]
struct Document {
    /// The anchors of its headings.
    anchors: Vec<String>,
    /// The destinations of its links and images.
    links: Vec<String>,
    /// The words of its inline code and code blocks.
    code: Vec<String>,
}

impl Document {
    /// Parses Markdown.
    fn parse(text: &str) -> Document {
        let mut document = Document::default();
        let mut seen = HashMap::new();
        let mut heading: Option<String> = None;
        let mut is_code = false;
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            if let (Some(heading), Event::Text(text) | Event::Code(text)) = (&mut heading, &event) {
                heading.push_str(text);
            }
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.links.push(dest_url.into_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let slug = slug(&heading.take().unwrap_or_default());
                    let times = seen.entry(slug.clone()).or_insert(0);
                    document.anchors.push(match *times {
                        0 => slug,
                        times => format!("{slug}-{times}"),
                    });
                    *times += 1;
                }
                Event::Start(Tag::CodeBlock(_)) => is_code = true,
                Event::End(TagEnd::CodeBlock) => is_code = false,
                Event::Code(text) => document.add_code(&text),
                Event::Text(text) if is_code => document.add_code(&text),
                _ => {}
            }
        }
        document
    }

    fn add_code(&mut self, text: &str) {
        self.code.extend(text.split_whitespace().map(str::to_owned));
    }
}

/// Returns the anchor that GitHub assigns to a heading: lower case, a hyphen for each space, and no
/// punctuation except hyphens and underscores.
fn slug(heading: &str) -> String {
    let lower = heading.trim().to_lowercase();
    let kept = lower.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c => c.is_alphanumeric().then_some(c),
    });
    kept.collect()
}

/// The root of the repository.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns all documents, as paths relative to the root.
fn documents() -> Vec<PathBuf> {
    let mut all = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
        .map(PathBuf::from)
        .to_vec();
    for entry in fs::read_dir(root().join("docs")).expect("a folder") {
        let name = entry.expect("an entry").file_name();
        if Path::new(&name).extension().is_some_and(|end| end == "md") {
            all.push(Path::new("docs").join(name));
        }
    }
    all
}

/// Returns the problems of a document with this name and text.
fn problems(name: &Path, text: &str) -> Vec<String> {
    let document = Document::parse(text);
    let links = document.links.iter().filter_map(|link| {
        let problem = link_problem(name, &document, link)?;
        Some(format!("{}: link {link}: {problem}", name.display()))
    });
    let paths = document.code.iter().filter_map(|word| {
        let path = path_in(word)?;
        let is_missing = !root().join(path).exists();
        is_missing.then(|| format!("{}: {path} does not exist", name.display()))
    });
    links.chain(paths).collect()
}

/// Returns the problem of a link, if it has one. Links to other sites are not checked.
fn link_problem(name: &Path, document: &Document, link: &str) -> Option<&'static str> {
    if link.contains("://") {
        return None;
    }
    let (path, anchor) = match link.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (link, None),
    };
    let file = root().join(name).with_file_name(path);
    if !path.is_empty() && !file.exists() {
        return Some("the file does not exist");
    }
    let has = |document: &Document, anchor| document.anchors.iter().any(|known| known == anchor);
    let is_found = match anchor {
        None => !path.is_empty(),
        Some(anchor) if path.is_empty() => has(document, anchor),
        Some(anchor) => {
            let text = fs::read_to_string(file);
            text.is_ok_and(|text| has(&Document::parse(&text), anchor))
        }
    };
    (!is_found).then_some("the heading does not exist")
}

/// Returns the path in a word of code, up to the first wildcard, if it is in one of the folders.
fn path_in(word: &str) -> Option<&str> {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric());
    let word = word.split(['*', '…']).next()?;
    FOLDERS
        .iter()
        .any(|folder| word.starts_with(folder))
        .then_some(word)
}

#[test]
fn links_anchors_and_paths_exist() {
    let all = documents();
    assert!(all.contains(&PathBuf::from("docs/testing.md")), "{all:?}");
    let found: Vec<String> = all
        .iter()
        .flat_map(|name| {
            let text = fs::read_to_string(root().join(name)).expect("text");
            problems(name, &text)
        })
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).expect("text");
    let lines = lines.lines().count();
    assert!(lines <= MAX_README_LINES, "README.md has {lines} lines");
}

#[test]
fn broken_links_and_paths_are_found() {
    let found = |name: &str, text: &str| problems(Path::new(name), text).len();
    for fine in [
        "[a](docs/testing.md), [b](docs/testing.md#mutants), ![c](docs/pages.png)",
        "[a](https://example.org/none#none)",
        "# One, two: `three`_4\n[a](#one-two-three_4)",
        "# A\n# A\n[a](#a) [b](#a-1)",
        "`src/lib.rs`, `scripts/bench --write docs/performance.md`, `--file 'src/tor/**'`, `other/none`",
    ] {
        assert_eq!(found("README.md", fine), 0, "{fine}");
    }
    assert_eq!(found("docs/a.md", "[a](testing.md) [b](../README.md)"), 0);
    for wrong in [
        "[a](docs/none.md)",
        "![a](docs/none.png)",
        "[a](docs/testing.md#none)",
        "[a](#none)",
        "[a]()",
        "[a][b]\n\n[b]: none.md",
        "# A\n[a](#a-1)",
        "| a |\n|---|\n| [b](none.md) |",
        "`src/none.rs`",
        "`none`, `scripts/none --quick`",
        "`--file 'src/none/**'`",
        "```sh\nscripts/none   # a comment\n```",
    ] {
        assert_eq!(found("README.md", wrong), 1, "{wrong}");
    }
    assert_eq!(found("docs/a.md", "[a](docs/testing.md)"), 1);
}
