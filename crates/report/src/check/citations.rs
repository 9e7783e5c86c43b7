//! Titles and arXiv numbers: what files say agrees with CITATION.md.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};
use regex::Regex;
use repro::{Error, Result, user};
use syn::visit::{self, Visit};

use super::read;

/// A citation under one of CITATION.md's headings.
struct Citation {
    /// The heading: a crate's name.
    section: String,
    title: String,
    /// `1708.07747`, of a paper that arXiv has.
    arxiv: Option<String>,
}

/// The paper's title is the same in CITATION.md, in the first lines of its README, and in its program.
pub(super) fn of_paper(root: &Path, paper: &str) -> Result<Vec<String>> {
    let citations = citations(root)?;
    let Some(Citation { title, .. }) = citations.iter().find(|c| c.section == paper) else {
        return Ok(vec![format!("CITATION.md: has no BibTeX entry under `## {paper}`; add the paper")]);
    };
    let mut found = Vec::new();
    let folder = root.join("crates").join(paper);
    let readme = folder.join("README.md");
    if readme.is_file() && !read(&readme)?.split("\n## ").next().unwrap_or_default().contains(title.as_str()) {
        found.push(format!(
            "{}: its first lines do not have the title of CITATION.md, \"{title}\"; make them agree",
            readme.display()
        ));
    }
    let mut titles = Vec::new();
    for path in sources(&folder.join("src")) {
        let code = syn::parse_file(&read(&path)?).map_err(|e| user!("{}: is not Rust: {e}", path.display()))?;
        let mut programs = Titles(Vec::new());
        programs.visit_file(&code);
        titles.extend(programs.0.into_iter().map(|title| (path.clone(), title)));
    }
    if titles.is_empty() {
        found.push(format!(
            "{}: no `Paper {{ title: \"…\" }}` is in it; give the program its paper's title",
            folder.display()
        ));
    }
    for (path, own) in titles.iter().filter(|(_, own)| own != title) {
        found.push(format!(
            "{}: the title \"{own}\" is not that of CITATION.md, \"{title}\"; make them agree",
            path.display()
        ));
    }
    Ok(found)
}

/// `title` of every `Paper { … }` in a file.
struct Titles(Vec<String>);

impl<'ast> Visit<'ast> for Titles {
    fn visit_expr_struct(&mut self, expr: &'ast syn::ExprStruct) {
        if expr.path.segments.last().is_some_and(|last| last.ident == "Paper") {
            for field in &expr.fields {
                if let (syn::Member::Named(name), syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. })) =
                    (&field.member, &field.expr)
                    && name == "title"
                {
                    self.0.push(text.value());
                }
            }
        }
        visit::visit_expr_struct(self, expr);
    }
}

/// arXiv numbers in READMEs, comments of source files and experiments are cited; a title in quotes on their line is the cited one.
pub(super) fn arxiv(root: &Path) -> Result<Vec<String>> {
    let number = pattern(r"(?i)arxiv(?::\s*|\.org/(?:abs|pdf)/)(\d{4}\.\d{4,5})")?;
    let quoted = pattern(r#""([^"]+)""#)?;
    let citations = citations(root)?;
    let cited: BTreeMap<_, _> =
        citations.iter().filter_map(|c| Some((c.arxiv.as_deref()?, c.title.as_str()))).collect();
    let mut found = Vec::new();
    for (path, text) in texts(root)? {
        for (index, line) in text.lines().enumerate() {
            let at = format!("{}:{}", path.display(), index + 1);
            for id in number.captures_iter(line).map(|c| c[1].to_string()) {
                let Some(title) = cited.get(id.as_str()) else {
                    found.push(format!(
                        "{at}: names arXiv:{id}, which CITATION.md does not cite; add it there with its title"
                    ));
                    continue;
                };
                let own: Vec<_> = quoted.captures_iter(line).map(|c| c[1].to_string()).collect();
                if !own.is_empty() && !own.iter().any(|own| own == title) {
                    found.push(format!("{at}: arXiv:{id} is \"{title}\" in CITATION.md; make the titles agree"));
                }
            }
        }
    }
    Ok(found)
}

/// What may name arXiv numbers: READMEs and experiments whole, of source files the comments. Other lines are empty, so that lines keep
/// their numbers.
fn texts(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut texts = Vec::new();
    for folder in crate::entries(&root.join("crates")) {
        let readme = folder.join("README.md");
        if readme.is_file() {
            texts.push((readme.clone(), read(&readme)?));
        }
        for path in sources(&folder.join("src")) {
            let code = read(&path)?;
            let comment =
                |line: &str| if line.trim_start().starts_with("//") { line.to_string() } else { String::new() };
            let comments: Vec<_> = code.lines().map(comment).collect();
            texts.push((path, comments.join("\n")));
        }
    }
    for path in crate::files_below(&root.join("experiments")) {
        texts.push((path.clone(), read(&path)?));
    }
    Ok(texts)
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    crate::files_below(folder).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).collect()
}

/// The BibTeX entries of CITATION.md. Of a title, braces that keep capitals are taken out.
fn citations(root: &Path) -> Result<Vec<Citation>> {
    let path = root.join("CITATION.md");
    let text = read(&path)?;
    let title = pattern(r"\btitle\s*=\s*\{((?:[^{}]|\{[^{}]*\})*)\}")?;
    let number = pattern(r"(?:arXiv:|eprint\s*=\s*\{)(\d{4}\.\d{4,5})")?;
    let (mut found, mut section, mut in_heading, mut in_bibtex) = (Vec::new(), String::new(), false, false);
    for event in Parser::new(&text) {
        match event {
            Event::Start(Tag::Heading { .. }) => (section, in_heading) = (String::new(), true),
            Event::End(TagEnd::Heading(_)) => in_heading = false,
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => in_bibtex = &*language == "bibtex",
            Event::End(TagEnd::CodeBlock) => in_bibtex = false,
            Event::Text(text) if in_heading => section += &text,
            Event::Text(text) if in_bibtex => {
                for entry in text.split("\n@") {
                    let title = title.captures(entry).ok_or_else(|| {
                        user!("{}: an entry under `## {section}` has no title = {{…}}; add it", path.display())
                    })?;
                    found.push(Citation {
                        section: section.clone(),
                        title: title[1].replace(['{', '}'], ""),
                        arxiv: number.captures(entry).map(|id| id[1].to_string()),
                    });
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

fn pattern(text: &str) -> Result<Regex> {
    Regex::new(text).map_err(|e| Error::Failed(format!("internal error: {e}")))
}
