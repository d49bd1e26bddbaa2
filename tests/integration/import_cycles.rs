//! No two files of `src` import each other, directly or through other files: each can be understood with
//! those that it imports alone. Imports are followed through re-exports to the file that defines the item.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path of modules and perhaps an item, from the root of the crate.
type ItemPath = Vec<String>;

/// One file of `src`.
#[derive(Default)]
struct Module {
    /// The paths that it names, as written.
    named: Vec<ItemPath>,
    /// What it re-exports: the name, and the path as written.
    exports: BTreeMap<String, ItemPath>,
    /// The names that it uses without a path.
    used: BTreeSet<String>,
    /// Whether it imports everything of a module, which cannot be followed; of an enum it may.
    has_globs: bool,
    /// The names that `use` declarations bind.
    aliases: BTreeMap<String, ItemPath>,
}

/// All files, by the path of their module.
struct Modules(BTreeMap<ItemPath, Module>);

impl Modules {
    /// Reads all files below a folder, except those with tests alone.
    fn read(source: &Path) -> Modules {
        let mut modules = Modules(BTreeMap::new());
        modules.read_folder(source, &[]);
        modules
    }

    fn read_folder(&mut self, folder: &Path, parent: &[String]) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let stem = stem.expect("a name").to_owned();
            let is_root = parent.is_empty() && matches!(&*stem, "main" | "lib");
            if is_root
                || matches!(
                    &*stem,
                    "tests" | "upstream_tests" | "scripted_network" | "reports"
                )
            {
                continue;
            }
            let module = [parent, &[stem]].concat();
            if path.is_dir() {
                self.read_folder(&path, &module);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                self.0.insert(module, Module::parse(&text));
            }
        }
    }

    /// The module that defines what `module` calls `path`; `None` for items of other crates and of its own.
    fn resolve(&self, module: &[String], path: &[String]) -> Option<ItemPath> {
        self.resolve_within(module, path, 0)
    }

    fn resolve_within(&self, module: &[String], path: &[String], depth: usize) -> Option<ItemPath> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match &**first {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => {
                let mut at = module[..module.len() - 1].to_vec();
                while let [next, others @ ..] = rest
                    && next == "super"
                {
                    at.pop();
                    rest = others;
                }
                at
            }
            child if self.0.contains_key(&[module, &[child.to_owned()]].concat()) => {
                rest = path;
                module.to_vec()
            }
            alias => {
                let target = self.0.get(module)?.aliases.get(alias)?;
                // A name that stands for itself comes from another crate.
                if depth > 8 || target[0] == *alias {
                    return None;
                }
                let path = [target, rest].concat();
                return self.resolve_within(module, &path, depth + 1);
            }
        };
        while let [next, others @ ..] = rest {
            let child = [&at[..], std::slice::from_ref(next)].concat();
            if self.0.contains_key(&child) {
                at = child;
                rest = others;
            } else if let Some(export) = self.0.get(&at).and_then(|m| m.exports.get(next))
                && depth <= 8
            {
                return self.resolve_within(&at, export, depth + 1);
            } else {
                return Some(at);
            }
        }
        // A path that ends at a module names nothing in it; what is named through it counts.
        None
    }

    /// Each file with the files that it imports.
    fn imports(&self) -> BTreeMap<ItemPath, BTreeSet<ItemPath>> {
        let imports = self.0.iter().map(|(name, module)| {
            let targets = module
                .named
                .iter()
                .filter_map(|path| self.resolve(name, path));
            (
                name.clone(),
                targets.filter(|target| target != name).collect(),
            )
        });
        imports.collect()
    }
}

impl Module {
    fn parse(text: &str) -> Module {
        let mut module = Module::default();
        let tokens: TokenStream = text.parse().expect("Rust");
        module.scan(tokens);
        // What the file itself uses of its re-exports.
        let exports = module.exports.iter();
        let used = exports.filter(|(name, _)| module.used.contains(*name));
        let used: Vec<ItemPath> = used.map(|(_, path)| path.clone()).collect();
        module.named.extend(used);
        module
    }

    /// Collects all paths in the tokens, except those of items for tests.
    fn scan(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            if is_for_tests(&tokens[at..]) {
                while !ends_item(&tokens[at]) && at + 1 < tokens.len() {
                    at += 1;
                }
                at += 1;
                continue;
            }
            match &tokens[at] {
                TokenTree::Ident(ident) if ident == "use" => {
                    let end = tokens[at..].iter().position(|t| is_punct(t, ';'));
                    let end = at + end.unwrap_or(tokens.len() - at);
                    let is_public = at > 0 && is_visibility(&tokens[..at]);
                    self.declare(&tokens[at + 1..end], &[], is_public);
                    at = end + 1;
                }
                TokenTree::Ident(ident) => {
                    let mut path = vec![ident.to_string()];
                    at += 1;
                    while let Some((next, name)) = next_segment(&tokens, at) {
                        path.push(name);
                        at = next;
                    }
                    match &path[..] {
                        [name] => drop(self.used.insert(name.clone())),
                        _ => self.named.push(path),
                    }
                }
                TokenTree::Group(group) => {
                    self.scan(group.stream());
                    at += 1;
                }
                _ => at += 1,
            }
        }
    }

    /// Notes the paths of a `use` declaration, or of a part of one in braces.
    fn declare(&mut self, tokens: &[TokenTree], prefix: &[String], is_public: bool) {
        for part in tokens.split(|token| is_punct(token, ',')) {
            let mut path = prefix.to_vec();
            let mut name = None;
            let mut is_nested = false;
            let mut part = part.iter();
            while let Some(token) = part.next() {
                match token {
                    TokenTree::Ident(ident) if ident == "as" => {
                        name = part.next().map(ToString::to_string);
                    }
                    TokenTree::Ident(ident) if ident == "self" && !prefix.is_empty() => {}
                    TokenTree::Ident(ident) => path.push(ident.to_string()),
                    TokenTree::Punct(punct) if punct.as_char() == '*' => {
                        let is_module = |name: &String| name.starts_with(char::is_lowercase);
                        self.has_globs |= path.last().is_some_and(is_module);
                        path.push("*".to_owned());
                    }
                    TokenTree::Group(group) => {
                        let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                        self.declare(&inner, &path, is_public);
                        is_nested = true;
                    }
                    _ => {}
                }
            }
            let Some(last) = path.last() else { continue };
            if is_nested {
                continue;
            }
            let name = name.unwrap_or_else(|| last.clone());
            if is_public {
                self.exports.insert(name.clone(), path.clone());
            } else {
                self.named.push(path.clone());
            }
            self.aliases.insert(name, path);
        }
    }
}

/// Whether the tokens begin with `#[cfg(test)]`.
fn is_for_tests(tokens: &[TokenTree]) -> bool {
    let [hash, TokenTree::Group(attribute), ..] = tokens else {
        return false;
    };
    is_punct(hash, '#') && attribute.stream().to_string().replace(' ', "") == "cfg(test)"
}

/// Whether an item, a field or an argument ends with this token.
fn ends_item(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is_punct(token, ';') || is_punct(token, ','),
    }
}

/// Whether the tokens end with `pub` or `pub(...)`.
fn is_visibility(tokens: &[TokenTree]) -> bool {
    let is_pub = |token: &TokenTree| matches!(token, TokenTree::Ident(ident) if ident == "pub");
    match tokens {
        [.., before, TokenTree::Group(_)] => is_pub(before),
        [.., last] => is_pub(last),
        [] => false,
    }
}

/// The name behind `::` at this place, and the place behind it.
fn next_segment(tokens: &[TokenTree], at: usize) -> Option<(usize, String)> {
    match tokens.get(at..at + 3)? {
        [first, second, TokenTree::Ident(name)]
            if is_punct(first, ':') && is_punct(second, ':') =>
        {
            Some((at + 3, name.to_string()))
        }
        _ => None,
    }
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

/// The imports that are part of a circle, or between two circles.
fn circular(mut imports: BTreeMap<ItemPath, BTreeSet<ItemPath>>) -> Vec<String> {
    loop {
        let imported: BTreeSet<ItemPath> = imports.values().flatten().cloned().collect();
        let before = imports.len();
        imports.retain(|name, targets| !targets.is_empty() && imported.contains(name));
        let left: BTreeSet<ItemPath> = imports.keys().cloned().collect();
        for targets in imports.values_mut() {
            targets.retain(|target| left.contains(target));
        }
        let is_done = imports.len() == before && imports.values().all(|t| !t.is_empty());
        if is_done {
            break;
        }
    }
    let lines = imports.iter().flat_map(|(name, targets)| {
        let lines = targets.iter();
        lines.map(move |target| format!("{} imports {}", name.join("::"), target.join("::")))
    });
    lines.collect()
}

#[test]
fn no_files_import_each_other() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let modules = Modules::read(&source);
    let globs = modules.0.iter().filter(|(_, module)| module.has_globs);
    let globs: Vec<String> = globs.map(|(name, _)| name.join("::")).collect();
    assert!(globs.is_empty(), "imports of everything: {globs:?}");
    let imports = modules.imports();
    let count: usize = imports.values().map(BTreeSet::len).sum();
    assert!(count > 300, "only {count} imports found");
    let circular = circular(imports);
    assert!(circular.is_empty(), "{}", circular.join("\n"));
}

#[test]
fn a_circle_is_found_through_re_exports_groups_and_aliases() {
    let modules = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(name, text)| {
            let name = name.split("::").map(str::to_owned).collect();
            (name, Module::parse(text))
        });
        circular(Modules(files.collect()).imports())
    };
    let apart = [
        ("a", "pub use b::B; pub mod b; pub mod c;"),
        ("a::b", "use std::fmt; pub struct B;"),
        (
            "a::c",
            "use crate::a::B; #[cfg(test)] mod tests { use crate::d::D; }",
        ),
        ("d", "use crate::a::{self, c::C}; fn f() -> a::B { a::B }"),
    ];
    assert_eq!(modules(&apart), [""; 0]);
    let circles: [&[(&str, &str)]; 5] = [
        &[
            ("a", "pub use b::B; pub struct A(B);"),
            ("a::b", "use super::A; pub struct B;"),
        ],
        &[
            ("a", "use b::B; pub struct A;"),
            ("a::b", "use super::A; pub struct B;"),
        ],
        &[
            ("a", "pub use b::B;"),
            ("a::b", "use crate::d::{D, E}; pub struct B;"),
            ("d", "use crate::a::B; pub struct D;"),
        ],
        &[
            ("a", "use crate::d; fn f() { d::run() }"),
            ("d", "fn f() { let x = vec![crate::a::f()]; }"),
        ],
        &[("a", "use super::d::*;"), ("d", "fn f(a: super::a::A) {}")],
    ];
    for files in circles {
        assert_ne!(modules(files), [""; 0], "{files:?}");
    }
}
