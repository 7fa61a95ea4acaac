//! House rules that no compiler knows: what a file opens with, which modules stay pure, which crates stay apart.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{
    purity::{Walls, breaches, test_only_modules},
    workspace::Workspace,
};

/// Every breach of a rule that can be seen in the sources, one line each.
pub(crate) fn in_sources(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut files = Vec::new();
    for member in ["agent", "agent-common", "agent-ebpf", "server-mock", "tests", "xtask", "fuzz"] {
        collect_rust_files(&workspace.root.join(member), &mut files)?;
    }
    let sources: Vec<(PathBuf, String)> = files.into_iter().map(read).collect::<anyhow::Result<_>>()?;
    for (path, source) in &sources {
        let shown = path.strip_prefix(&workspace.root).unwrap_or(path).display();
        if !opens_with_a_sentence(source) {
            found.push(format!("{shown}: the first line must be a `//!` sentence that says what lives here"));
        }
    }
    for (path, source) in &sources {
        let Ok(inner) = path.strip_prefix(workspace.root.join("agent/src")) else { continue };
        let Some(walls) = walls_of(inner) else { continue };
        if !is_test_only(inner, &sources) {
            found.extend(
                breaches(source, walls).into_iter().map(|line| format!("agent/src/{}: {line}", inner.display())),
            );
        }
    }
    Ok(found)
}

/// The server is another party: what it says about the wire must not come from the agent.
pub(crate) fn in_server_dependencies(cargo_tree: &str) -> Vec<String> {
    let names: BTreeSet<&str> = cargo_tree.lines().filter_map(|line| line.split(' ').next()).collect();
    let agent = names
        .contains("agent")
        .then(|| "server-mock depends on agent: two parties, two spellings of the wire".to_owned());
    // A tree without the server itself is no tree: the rule must not pass on an empty answer.
    let empty =
        (!names.contains("server-mock")).then(|| "the dependency tree of server-mock could not be read".to_owned());
    agent.into_iter().chain(empty).collect()
}

fn opens_with_a_sentence(source: &str) -> bool {
    source.lines().next().and_then(|line| line.strip_prefix("//! ")).is_some_and(|text| !text.trim().is_empty())
}

/// The walls around a file of the agent, given by its path below `agent/src`.
fn walls_of(inner: &Path) -> Option<Walls<'static>> {
    let names: Vec<&str> = inner.iter().filter_map(|name| name.to_str()).collect();
    match names.as_slice() {
        ["units.rs" | "meter.rs"] => Some(Walls { modules: &["units"], depth: 0 }),
        ["units" | "meter", folders @ ..] => Some(Walls { modules: &["units", "meter"], depth: depth(folders) }),
        ["quota.rs"] => Some(Walls { modules: &["units", "quota"], depth: 0 }),
        ["quota", folders @ ..] => Some(Walls { modules: &["units", "quota"], depth: depth(folders) }),
        _ => None,
    }
}

/// `mod.rs` is the folder itself; any other file is one module further in.
fn depth(below: &[&str]) -> usize {
    if below.last() == Some(&"mod.rs") { below.len() - 1 } else { below.len() }
}

/// Whether the file, or a folder it is in, is a module that its parent declares under `#[cfg(test)]`.
fn is_test_only(inner: &Path, sources: &[(PathBuf, String)]) -> bool {
    let Some(folder) = inner.iter().next().map(|name| Path::new(name).with_extension("")) else { return false };
    let root = |path: &Path| path.to_string_lossy().contains(&format!("agent/src/{}", folder.display()));
    let declared: Vec<String> =
        sources.iter().filter(|(path, _)| root(path)).flat_map(|(_, source)| test_only_modules(source)).collect();
    inner.iter().skip(1).any(|name| declared.iter().any(|module| Path::new(name).file_stem() == Some(module.as_ref())))
}

fn read(path: PathBuf) -> anyhow::Result<(PathBuf, String)> {
    let source = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok((path, source))
}

/// Every Rust source below a directory, build directories apart.
pub(crate) fn collect_rust_files(directory: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.join("CACHEDIR.TAG").exists() {
            collect_rust_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_opening_sentence_is_seen() {
        assert!(opens_with_a_sentence("//! What lives here.\n"));
        for bad in ["", "//!\n", "//!   \n", "// x\n", "use std::fmt;\n", "\n//! too late\n", "/// x\n"] {
            assert!(!opens_with_a_sentence(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_server_that_depends_on_the_agent_is_seen() {
        assert!(in_server_dependencies("server-mock v0.1.0 (/x)\naxum v0.8.4\nagent-x v1").is_empty());
        assert_eq!(in_server_dependencies("server-mock v0.1.0 (/x)\nagent v0.1.0 (/x/agent)").len(), 1);
        assert_eq!(in_server_dependencies("").len(), 1);
    }

    #[test]
    fn the_pure_modules_have_walls_and_the_others_have_none() {
        let depth_of = |path: &str| walls_of(Path::new(path)).map(|walls| walls.depth);
        assert_eq!(["units.rs", "meter.rs", "quota.rs", "quota/mod.rs"].map(depth_of), [Some(0); 4]);
        assert_eq!(["quota/session.rs", "quota/session/mod.rs", "meter/epoch.rs"].map(depth_of), [Some(1); 3]);
        assert_eq!(depth_of("quota/session/renew.rs"), Some(2));
        assert_eq!(["ledger/mod.rs", "clock.rs", "datapath/meter.rs", "units_of.rs"].map(depth_of), [None; 4]);
    }

    #[test]
    fn only_a_declared_test_module_is_let_off() {
        let sources = [("/w/agent/src/quota/mod.rs", "mod session; #[cfg(test)] mod walk;")];
        let sources = sources.map(|(path, source)| (PathBuf::from(path), source.to_owned()));
        assert!(is_test_only(Path::new("quota/walk.rs"), &sources));
        assert!(!is_test_only(Path::new("quota/session.rs"), &sources));
    }

    #[test]
    fn this_house_keeps_its_own_rules() {
        assert_eq!(in_sources(&Workspace::find().unwrap()).unwrap(), Vec::<String>::new());
    }
}
