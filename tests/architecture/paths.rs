//! Which paths a source file names, made absolute: what the architecture test reads.
//!
//! Items and expressions come from `syn`; the inside of a macro and of an attribute is text to it, so there a small
//! scanner looks for paths that begin with `crate` or `super`. Names brought in by `use` are followed, so that
//! `use std::net;` and `net::TcpStream` together are found.

use std::collections::{BTreeMap, BTreeSet};

use syn::{
    Attribute, Expr, ExprMethodCall, Item, ItemMod, ItemUse, Lit, Macro, Meta, Path, UseTree,
    visit::{self, Visit},
};

/// One path of a file.
#[derive(Debug)]
pub struct Named {
    /// Absolute: its first part is a crate's name, or `crate`.
    pub path: Vec<String>,
    /// Whether it stands in test code.
    pub in_test: bool,
}

impl Named {
    /// The top-level module of this crate that it leads to.
    pub fn module(&self) -> Option<&str> {
        let inside = self.path.first()? == "crate";
        let module = self.path.get(1)?;
        (inside && module != "*" && module != "self").then_some(module.as_str())
    }

    /// The part below `crate::house`.
    pub fn room_in(&self, house: &str) -> Option<&str> {
        (self.module()? == house).then(|| self.path.get(2).map(String::as_str))?
    }
}

/// One source file.
#[derive(Debug)]
pub struct Source {
    /// Its path below `src`.
    pub file: String,
    /// All of it.
    pub text: String,
    /// Its module comment.
    pub comment: String,
    /// What it names.
    pub named: Vec<Named>,
    module: Vec<String>,
    rooms: BTreeSet<(String, String)>,
}

impl Source {
    /// The top-level module it belongs to; `lib` and `main` for those two files.
    pub fn top(&self) -> &str {
        self.module
            .first()
            .map_or_else(|| self.file.trim_end_matches(".rs"), String::as_str)
    }

    /// The part of its module path below `house`; none for `house/mod.rs` itself.
    pub fn room_in(&self, house: &str) -> Option<&str> {
        (self.top() == house).then(|| self.module.get(1).map(String::as_str))?
    }

    /// Whether `house::room` is a module at all.
    pub fn is_room(&self, house: &str, room: &str) -> bool {
        self.rooms.contains(&(house.to_owned(), room.to_owned()))
    }
}

/// Reads files, given as (path below `src`, text).
pub fn read_all(texts: &[(String, String)]) -> Vec<Source> {
    let rooms: BTreeSet<(String, String)> = texts
        .iter()
        .filter_map(|(file, _)| {
            let module = module_of(file);
            Some((module.first()?.clone(), module.get(1)?.clone()))
        })
        .collect();
    texts
        .iter()
        .map(|(file, text)| read(file, text, &rooms))
        .collect()
}

fn read(file: &str, text: &str, rooms: &BTreeSet<(String, String)>) -> Source {
    let syntax = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
    let module = module_of(file);
    let mut collector = Collector {
        own_crate: if file == "main.rs" { "emccd" } else { "crate" },
        module: module.clone(),
        in_test: file.ends_with("/tests.rs") || file.contains("/tests/"),
        aliases: BTreeMap::new(),
        named: Vec::new(),
    };
    collector.learn_aliases(&syntax.items);
    collector.visit_file(&syntax);
    Source {
        file: file.to_owned(),
        text: text.to_owned(),
        comment: comment_of(&syntax.attrs),
        named: collector.named,
        module,
        rooms: rooms.clone(),
    }
}

/// `edge/phone/mod.rs` is `[edge, phone]`; `lib.rs` and `main.rs` are the root.
fn module_of(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" || path == "main" {
        return Vec::new();
    }
    path.split('/').map(str::to_owned).collect()
}

fn comment_of(attributes: &[Attribute]) -> String {
    let mut comment = String::new();
    for attribute in attributes {
        if let Meta::NameValue(pair) = &attribute.meta
            && pair.path.is_ident("doc")
            && let Expr::Lit(literal) = &pair.value
            && let Lit::Str(line) = &literal.lit
        {
            comment.push_str(&line.value());
            comment.push('\n');
        }
    }
    comment
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && matches!(&attribute.meta, Meta::List(list) if list.tokens.to_string() == "test")
            || attribute.path().is_ident("test")
    })
}

struct Collector {
    own_crate: &'static str,
    module: Vec<String>,
    in_test: bool,
    /// What `use` brought in: the short name, the whole path.
    aliases: BTreeMap<String, Vec<String>>,
    named: Vec<Named>,
}

impl Collector {
    /// Names are learned for the whole file, whatever block a `use` stands in: an alias too many is harmless.
    fn learn_aliases(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Use(item) => {
                    for (path, alias) in leaves(&item.tree) {
                        if let Some(path) = self.absolute(&path, false) {
                            self.aliases.insert(alias, path);
                        }
                    }
                }
                Item::Mod(item) => {
                    if let Some((_, items)) = &item.content {
                        self.module.push(item.ident.to_string());
                        self.learn_aliases(items);
                        self.module.pop();
                    }
                }
                _ => {}
            }
        }
    }

    /// The whole path, or none for a name of the file's own.
    fn absolute(&self, path: &[String], follow: bool) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut whole = vec!["crate".to_owned()];
        match first.as_str() {
            "crate" => whole.extend_from_slice(rest),
            name if name == self.own_crate => whole.extend_from_slice(rest),
            "self" => {
                whole.extend_from_slice(&self.module);
                whole.extend_from_slice(rest);
            }
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                whole.extend_from_slice(&self.module[..self.module.len().saturating_sub(ups)]);
                whole.extend_from_slice(&path[ups..]);
            }
            name if follow => {
                whole.clone_from(self.aliases.get(name)?);
                whole.extend_from_slice(rest);
            }
            _ => return Some(path.to_vec()),
        }
        Some(whole)
    }

    fn add(&mut self, path: &[String], follow: bool) {
        // A path in full (`std::fs::read`) and one through an alias (`fs::read`) look alike: take both readings.
        let readings = [
            self.absolute(path, false),
            follow.then(|| self.absolute(path, true)).flatten(),
        ];
        for path in readings.into_iter().flatten() {
            self.named.push(Named {
                path,
                in_test: self.in_test,
            });
        }
    }

    fn scan(&mut self, text: &str) {
        for path in scan(text) {
            self.add(&path, true);
        }
    }

    fn in_test_if(&mut self, test: bool, visit: impl FnOnce(&mut Self)) {
        let before = self.in_test;
        self.in_test |= test;
        visit(self);
        self.in_test = before;
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        // A `mod name;` is a file of its own; only a module written out here has a depth of its own.
        self.in_test_if(is_test(&item.attrs), |this| {
            this.module.push(item.ident.to_string());
            visit::visit_item_mod(this, item);
            this.module.pop();
        });
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.in_test_if(is_test(&item.attrs), |this| {
            visit::visit_item_fn(this, item);
        });
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.in_test_if(is_test(&item.attrs), |this| {
            visit::visit_item_impl(this, item);
        });
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.in_test_if(is_test(&item.attrs), |this| {
            for (path, _) in leaves(&item.tree) {
                this.add(&path, false);
            }
        });
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let parts: Vec<String> = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        self.add(&parts, true);
        visit::visit_path(self, path);
    }

    /// A call has no path; what it is called on isn't known here, so any in a file that has an `Instant` of the
    /// standard library's counts.
    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        let instant = ["std", "time", "Instant"].map(str::to_owned);
        if call.method == "elapsed"
            && call.args.is_empty()
            && self
                .aliases
                .get("Instant")
                .is_some_and(|path| *path == instant)
        {
            self.add(&[&instant[..], &["elapsed".to_owned()]].concat(), false);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.scan(&item.tokens.to_string());
        visit::visit_macro(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        // What a doc comment links to is no arrow.
        if attribute.path().is_ident("doc") {
            return;
        }
        match &attribute.meta {
            Meta::List(list) => self.scan(&list.tokens.to_string()),
            Meta::Path(_) | Meta::NameValue(_) => visit::visit_attribute(self, attribute),
        }
    }
}

/// The paths that a `use` brings in, each with the name it gets here.
fn leaves(tree: &UseTree) -> Vec<(Vec<String>, String)> {
    match tree {
        UseTree::Path(path) => {
            let first = path.ident.to_string();
            leaves(&path.tree)
                .into_iter()
                .map(|(mut rest, alias)| {
                    let alias = if rest == ["self"] && alias == "self" {
                        first.clone()
                    } else {
                        alias
                    };
                    if rest == ["self"] {
                        rest.clear();
                    }
                    rest.insert(0, first.clone());
                    (rest, alias)
                })
                .collect()
        }
        UseTree::Name(name) => vec![(vec![name.ident.to_string()], name.ident.to_string())],
        UseTree::Rename(name) => vec![(vec![name.ident.to_string()], name.rename.to_string())],
        UseTree::Glob(_) => vec![(vec!["*".to_owned()], "*".to_owned())],
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
    }
}

/// The paths in the text of a macro: words joined by `::`, with groups in braces taken apart.
fn scan(text: &str) -> Vec<Vec<String>> {
    let tokens: Vec<&str> = tokens(text);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_word(tokens[at]) && tokens.get(at + 1) == Some(&"::") {
            at = scan_path(&tokens, at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads one path, or one group of paths behind a common beginning. Answers where it ends.
fn scan_path(
    tokens: &[&str],
    mut at: usize,
    before: &[String],
    found: &mut Vec<Vec<String>>,
) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens.get(at) {
            Some(&"{") if path.len() > before.len() => {
                at += 1;
                while at < tokens.len() && tokens[at] != "}" {
                    at = if is_word(tokens[at]) || tokens[at] == "*" {
                        scan_path(tokens, at, &path, found)
                    } else {
                        at + 1
                    };
                }
                return at + 1;
            }
            Some(&word) if is_word(word) || word == "*" => {
                path.push(word.to_owned());
                at += 1;
            }
            // `::<T>` ends what is of interest.
            _ => break,
        }
        if tokens.get(at) == Some(&"::") {
            at += 1;
        } else {
            break;
        }
    }
    found.push(path);
    at
}

fn is_word(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        if !first.is_whitespace() {
            tokens.push(&rest[..length]);
        }
        rest = &rest[length..];
    }
    tokens
}
