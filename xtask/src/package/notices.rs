//! Licences and notices of what is linked into the binary: whoever gets the binary has to get them, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{children::run, workspace::Workspace};

/// The packages that are in the binary: the agent, and the object for the kernel that it carries.
const ROOTS: [&str; 2] = ["agent", "agent-ebpf"];

/// How the name of such a file begins, in any case.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

const HEAD: &str = "\
The binary of weir has crates linked into it: at most these, each under the licence named.
Their texts and notices follow, each once, with whose it is.

";

/// Writes them, for an agent of this target, into `file` with `.gz` behind its name.
pub(super) fn write(workspace: &Workspace, target: &str, file: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&workspace.root).args(["metadata", "--locked", "--format-version=1"]);
    command.args(["--filter-platform", target]);
    let output = command.output().context("start cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata = serde_json::from_slice(&output.stdout).context("what cargo metadata prints")?;
    fs::write(file, text(&linked(&metadata, &ROOTS)?)?).with_context(|| format!("write {}", file.display()))?;
    let mut gzip = Command::new("gzip");
    gzip.args(["--best", "--no-name", "--force"]).arg(file);
    run(gzip)
}

/// A crate as cargo describes it.
struct Crate<'m> {
    name: &'m str,
    version: &'m str,
    licence: &'m str,
    manifest: &'m Path,
}

/// What is linked into these packages of the workspace: not what only builds or tests them, and no macros.
fn linked<'m>(metadata: &'m Value, roots: &[&str]) -> anyhow::Result<Vec<Crate<'m>>> {
    let packages = metadata["packages"].as_array().context("packages")?;
    let packages: BTreeMap<_, _> = packages.iter().map(|package| (package["id"].as_str(), package)).collect();
    let nodes = metadata["resolve"]["nodes"].as_array().context("nodes")?;
    let nodes: BTreeMap<_, _> = nodes.iter().map(|node| (node["id"].as_str(), node)).collect();
    let is_root = |package: &&&Value| package["source"].is_null() && roots.iter().any(|root| package["name"] == *root);
    let mut waiting: Vec<_> = packages.values().filter(is_root).map(|package| package["id"].as_str()).collect();
    ensure!(waiting.len() == roots.len(), "not all of {roots:?} are packages of this workspace");
    let mut seen: BTreeSet<_> = waiting.iter().copied().collect();
    while let Some(id) = waiting.pop() {
        let needed = nodes.get(&id).and_then(|node| node["deps"].as_array()).context("dependencies")?;
        for dependency in needed.iter().filter(|dependency| is_linked(dependency)) {
            let id = dependency["pkg"].as_str();
            if !is_macro(packages.get(&id).context("a package without a description")?) && seen.insert(id) {
                waiting.push(id);
            }
        }
    }
    let theirs = seen.iter().filter_map(|id| packages.get(id)).filter(|package| !package["source"].is_null());
    theirs.map(|package| Crate::of(package)).collect()
}

fn is_linked(dependency: &Value) -> bool {
    // A kind that is not named is the usual one.
    dependency["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
}

fn is_macro(package: &Value) -> bool {
    let targets = package["targets"].as_array().into_iter().flatten();
    targets.filter_map(|target| target["kind"].as_array()).flatten().any(|kind| kind == "proc-macro")
}

impl<'m> Crate<'m> {
    fn of(package: &'m Value) -> anyhow::Result<Self> {
        let member = |name: &str| package[name].as_str().with_context(|| format!("{name} of a package"));
        Ok(Self {
            name: member("name")?,
            version: member("version")?,
            licence: package["license"].as_str().unwrap_or("see its file"),
            manifest: Path::new(member("manifest_path")?),
        })
    }

    /// The texts in its directory.
    fn texts(&self) -> anyhow::Result<Vec<String>> {
        let directory = self.manifest.parent().context("a manifest is in a directory")?;
        let mut files = Vec::new();
        for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().to_uppercase();
            if entry.path().is_file() && NAMES.iter().any(|beginning| name.starts_with(beginning)) {
                files.push(entry.path());
            }
        }
        files.sort();
        let read = |file: &std::path::PathBuf| fs::read(file).with_context(|| format!("read {}", file.display()));
        files.iter().map(|file| Ok(String::from_utf8_lossy(&read(file)?).into_owned())).collect()
    }
}

/// A list of all, then every text once.
fn text(crates: &[Crate<'_>]) -> anyhow::Result<String> {
    let mut page = HEAD.to_owned();
    // The same words with other blanks are the same text.
    let mut texts: BTreeMap<Vec<String>, (String, Vec<&str>)> = BTreeMap::new();
    for one in crates {
        writeln!(page, "{} {}: {}", one.name, one.version, one.licence)?;
        for text in one.texts()? {
            let words = text.split_whitespace().map(str::to_owned).collect();
            texts.entry(words).or_insert_with(|| (text, Vec::new())).1.push(one.name);
        }
    }
    for (text, whose) in texts.values() {
        writeln!(page, "\n{}\n{}\n\n{}", "=".repeat(78), whose.join(", "), text.trim_end())?;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_linked_is_named_and_what_only_builds_or_tests_is_not() {
        let package = |name: &str, kind: &str, source: Value| {
            json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT", "source": source,
                    "manifest_path": format!("/nowhere/{name}/Cargo.toml"), "targets": [{ "kind": [kind] }] })
        };
        let registry = || json!("registry");
        let needs = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [
                package("agent", "bin", Value::Null),
                package("common", "lib", Value::Null),
                package("linked", "lib", registry()),
                package("deeper", "lib", registry()),
                package("macros", "proc-macro", registry()),
                package("builds", "lib", registry()),
                package("tests", "lib", registry()),
            ],
            "resolve": { "nodes": [
                { "id": "agent", "deps": [
                    needs("common", Value::Null), needs("macros", Value::Null),
                    needs("builds", json!("build")), needs("tests", json!("dev")),
                ] },
                { "id": "common", "deps": [needs("linked", Value::Null)] },
                { "id": "linked", "deps": [needs("deeper", Value::Null)] },
                { "id": "deeper", "deps": [] },
            ] },
        });
        let crates = linked(&metadata, &["agent"]).unwrap();
        let names: Vec<_> = crates.iter().map(|one| one.name).collect();
        assert_eq!(names, ["deeper", "linked"]);
    }
}
