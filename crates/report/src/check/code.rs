//! The table "paper | code" of a crate's README: its files exist, and have the items that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use repro::{Result, user};
use syn::visit::{self, Visit};

use super::read;

/// What is wrong with the table of `crates/<paper>/README.md`.
pub(super) fn findings(root: &Path, paper: &str) -> Result<Vec<String>> {
    let readme = root.join("crates").join(paper).join("README.md");
    if !readme.is_file() {
        return Ok(vec![format!("{}: is missing; write the paper's review", readme.display())]);
    }
    let named = named(&read(&readme)?);
    if named.is_empty() {
        return Ok(vec![format!("{}: has no table `| paper | code |` that names items; write it", readme.display())]);
    }
    let (mut known, mut found) = (BTreeMap::<PathBuf, BTreeSet<String>>::new(), Vec::new());
    for Named { file, item } in named {
        let path = readme.with_file_name(&file);
        if !path.is_file() {
            found.push(format!("{}: names `{item}` in {file}, which does not exist; mend the link", readme.display()));
            continue;
        }
        if !known.contains_key(&path) {
            known.insert(path.clone(), items(&path)?);
        }
        if !known[&path].contains(&item) {
            found.push(format!("{}: {file} has no item `{item}`; name what is there", readme.display()));
        }
    }
    Ok(found)
}

/// An item that the table names, and the file that it says it is in.
#[derive(Debug, PartialEq)]
struct Named {
    file: String,
    item: String,
}

/// The code spans in the table's second column, each in the file of the link that holds it or stands before it in the cell. A span
/// with a space is a command. What stands in further columns, such as the tests, is not looked at.
fn named(markdown: &str) -> Vec<Named> {
    let (mut found, mut heads, mut header, mut column) = (Vec::new(), Vec::new(), false, 0);
    let mut file: Option<String> = None;
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::TableHead) => (header, heads) = (true, Vec::new()),
            Event::End(TagEnd::TableHead) => header = false,
            Event::Start(Tag::TableRow) => column = 0,
            Event::Start(Tag::TableCell) => file = None,
            Event::End(TagEnd::TableCell) => column += 1,
            Event::End(TagEnd::Table) => heads.clear(),
            Event::Text(text) if header => heads.push(text.to_string()),
            Event::Start(Tag::Link { dest_url, .. }) => file = dest_url.ends_with(".rs").then(|| dest_url.to_string()),
            Event::Code(item)
                if !header && heads.iter().take(2).eq(["paper", "code"]) && column == 1 && !item.contains(' ') =>
            {
                found.extend(file.clone().map(|file| Named { file, item: item.to_string() }));
            }
            _ => {}
        }
    }
    found
}

/// The names that a file defines, members also as `Parent::member`; and the module that it is.
fn items(path: &Path) -> Result<BTreeSet<String>> {
    let text = read(path)?;
    let file = syn::parse_file(&text).map_err(|e| user!("{}: is not Rust: {e}", path.display()))?;
    let mut items = Items { names: BTreeSet::from([crate::stem(path)]), parent: String::new() };
    items.visit_file(&file);
    Ok(items.names)
}

struct Items {
    names: BTreeSet<String>,
    /// The type or trait whose members are being visited.
    parent: String,
}

impl Items {
    fn item(&mut self, name: &syn::Ident) {
        self.names.insert(name.to_string());
        if !self.parent.is_empty() {
            self.names.insert(format!("{}::{name}", self.parent));
        }
    }

    fn within(&mut self, parent: &syn::Ident, members: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.parent, parent.to_string());
        members(self);
        self.parent = outer;
    }
}

impl<'ast> Visit<'ast> for Items {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.item(&item.sig.ident);
    }
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.item(&item.ident);
    }
    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.item(&item.ident);
    }
    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.item(&item.ident);
    }
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.item(&item.ident);
        self.within(&item.ident, |members| visit::visit_item_struct(members, item));
    }
    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.item(&item.ident);
        self.within(&item.ident, |members| visit::visit_item_enum(members, item));
    }
    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.item(&item.ident);
        self.within(&item.ident, |members| visit::visit_item_trait(members, item));
    }
    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        // `impl Network` and `impl Recipe for Train`: members are those of the type.
        if let syn::Type::Path(path) = &*item.self_ty
            && let Some(last) = path.path.segments.last()
        {
            self.within(&last.ident, |members| visit::visit_item_impl(members, item));
        }
    }
    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        self.item(&variant.ident);
    }
    fn visit_field(&mut self, field: &'ast syn::Field) {
        field.ident.iter().for_each(|name| self.item(name));
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.item(&item.sig.ident);
    }
    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.item(&item.ident);
    }
    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.item(&item.sig.ident);
    }
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.item(&item.ident);
        // Tests are no place that a paper's equation is found in.
        if item.ident != "tests" {
            visit::visit_item_mod(self, item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_taken_from_the_code_column_with_their_file() {
        let named = named(
            "| other | code |\n|---|---|\n| a | [`no`](src/no.rs) |\n\n| paper | code | test |\n|---|---|---|\n\
             | `Eq` 5 | [`A`](src/a.rs): C1 `B`, [`C::d`](src/c.rs), `paper summary` | [`t`](t.rs) |\n| §2 | [folder](../x), `E` | |\n",
        );
        let of = |file: &str, item: &str| Named { file: file.into(), item: item.into() };
        assert_eq!(named, [of("src/a.rs", "A"), of("src/a.rs", "B"), of("src/c.rs", "C::d")]);
    }

    #[test]
    fn members_are_known_with_their_parents() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("glyphs.rs");
        let code = "pub fn squash() { let inner = 1; helper(inner) }\nconst TABLE: [u8; 1] = [0];\nenum Loss { Map { j: f64 } }\n\
                    struct Net { width: i64 }\nimpl Net { pub fn layers(&self) {} }\ntrait Rule { fn step(&self); }\n\
                    mod tests { fn only_here() {} }";
        std::fs::write(&file, code).unwrap();
        let items = items(&file).unwrap();
        for name in [
            "glyphs",
            "squash",
            "TABLE",
            "Loss::Map",
            "Map",
            "Net::width",
            "Net::layers",
            "layers",
            "Rule::step",
            "tests",
        ] {
            assert!(items.contains(name), "{name} in {items:?}");
        }
        for name in ["helper", "inner", "Loss::layers", "Net::Map", "only_here"] {
            assert!(!items.contains(name), "{name} in {items:?}");
        }
    }
}
