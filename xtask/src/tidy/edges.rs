//! Which crate may depend on which, what a crate may be called, and who may depend on a database's
//! driver. Dev-dependencies are free: tests wire what the binary wires.

use toml::{Table, Value};

use super::{Finding, Rules};
use crate::workspace::Member;

/// Tables of a manifest whose entries end up in the built crate.
const SECTIONS: [&str; 2] = ["dependencies", "build-dependencies"];

/// Checks the manifests of all crates. `root` is the workspace's own manifest.
pub(super) fn check(members: &[Member], root: &Table, rules: &Rules) -> Vec<Finding> {
    let shared = root
        .get("workspace")
        .and_then(|workspace| workspace.get("dependencies"))
        .and_then(Value::as_table)
        .cloned()
        .unwrap_or_default();
    members.iter().flat_map(|member| check_member(member, &shared, rules)).collect()
}

fn check_member(member: &Member, shared: &Table, rules: &Rules) -> Vec<Finding> {
    let file = format!("{}/Cargo.toml", member.folder);
    let name = &member.name;
    let finding = |at: &str, problem: String| Finding::new(&file, line_of(&member.text, at), problem);
    let mut findings = Vec::new();
    let last = name.rsplit(['-', '_']).next().unwrap_or(name);
    if rules.banned_names.iter().any(|banned| banned == last) {
        let problem = format!("the crate's name `{name}` says nothing of what is inside; rename it");
        findings.push(finding("name", problem));
    }
    let Some(allowed) = rules.edges.get(name) else {
        let problem = format!(
            "the crate `{name}` has no place among the edges of xtask/tidy.toml; add it with the \
             crates it may depend on"
        );
        findings.push(finding("name", problem));
        return findings;
    };
    for (key, dependency) in dependencies(&member.manifest, shared) {
        if rules.edges.contains_key(&dependency) && !allowed.contains(&dependency) {
            let list: Vec<&str> = allowed.iter().map(String::as_str).collect();
            let list = if list.is_empty() { "no crate of ours".to_owned() } else { list.join(", ") };
            let problem = format!(
                "`{name}` may not depend on `{dependency}`, only on {list}; move what is needed \
                 to where both may see it"
            );
            findings.push(finding(&key, problem));
        }
        let database = rules.database_words.iter().find(|word| dependency.contains(*word));
        if let (Some(database), true) = (database, rules.database_free.contains(name)) {
            let problem = format!(
                "`{name}` depends on `{dependency}`, which names the database `{database}`; only \
                 the store, the binary and the simulator may"
            );
            findings.push(finding(&key, problem));
        }
    }
    findings
}

/// The dependencies of a manifest: the key they stand under, and the package's name.
fn dependencies(manifest: &Table, shared: &Table) -> Vec<(String, String)> {
    let mut tables: Vec<&Table> = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(Value::as_table) {
        tables.extend(targets.values().filter_map(Value::as_table));
    }
    let sections = tables.iter().flat_map(|table| SECTIONS.map(|section| table.get(section)));
    let entries = sections.flatten().filter_map(Value::as_table).flatten();
    entries
        .map(|(key, entry)| {
            let renamed = |entry: &Value| entry.get("package").and_then(Value::as_str).map(str::to_owned);
            let package = renamed(entry).or_else(|| shared.get(key).and_then(renamed));
            (key.clone(), package.unwrap_or_else(|| key.clone()))
        })
        .collect()
}

/// The first line that begins with `key`, or the first line.
fn line_of(text: &str, key: &str) -> usize {
    let begins = |line: &str| {
        let line = line.trim_start().trim_start_matches('"');
        line.strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', '.', '=', '"']))
    };
    text.lines().position(begins).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use toml::Table;

    use super::check;
    use crate::tidy::tests::rules;
    use crate::workspace::Member;

    fn findings(name: &str, body: &str) -> Vec<(usize, String)> {
        let text = format!("[package]\nname = \"{name}\"\n{body}");
        let member = Member::parse("crates/x", text).unwrap();
        let root: Table = "[workspace.dependencies]\nold = { package = \"longhaul-engine\", path = \"e\" }"
            .parse()
            .unwrap();
        let found = check(&[member], &root, &rules());
        found.into_iter().map(|finding| (finding.line, finding.problem)).collect()
    }

    #[test]
    fn the_edges_of_the_overview_pass() {
        let engine = "[dependencies]\nlonghaul-session.workspace = true\nlonghaul-store.workspace = true";
        assert_eq!(findings("longhaul-engine", engine), []);
        let binary = "[dependencies]\nlonghaul-server.workspace = true\nrusqlite = \"0.41\"";
        assert_eq!(findings("longhaul", binary), []);
    }

    #[test]
    fn an_edge_upwards_or_sideways_fails_with_its_line() {
        let cases = [
            ("longhaul-session", "[dependencies]\nlonghaul-store.workspace = true"),
            ("longhaul-store", "[dependencies]\nlonghaul-model = { path = \"../m\" }"),
            ("longhaul-tools", "[build-dependencies]\nlonghaul-model.workspace = true"),
            ("longhaul-server", "[target.'cfg(unix)'.dependencies]\nlonghaul-store = \"0\""),
            ("longhaul-sim", "[dependencies]\nlonghaul = \"0\""),
            ("longhaul-model", "[dependencies]\nother = { package = \"longhaul-tools\" }"),
            ("longhaul-model", "[dependencies]\nold.workspace = true"),
            ("xtask", "[dependencies]\nlonghaul-session = \"0\""),
        ];
        for (name, body) in cases {
            let found = findings(name, body);
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert_eq!(found[0].0, 4, "{name}: {found:?}");
            assert!(found[0].1.contains("may not depend on"), "{found:?}");
        }
    }

    #[test]
    fn dev_dependencies_are_free() {
        let body = "[dev-dependencies]\nlonghaul-store.workspace = true\nrusqlite = \"0.41\"";
        assert_eq!(findings("longhaul-session", body), []);
    }

    #[test]
    fn a_database_driver_fails_where_no_database_is_named() {
        let found = findings("longhaul-tools", "[dependencies]\nrusqlite.workspace = true");
        assert_eq!(found.len(), 1);
        assert!(found[0].1.contains("`sqlite`"), "{found:?}");
    }

    #[test]
    fn a_crate_has_a_place_and_a_name_that_says_something() {
        let found = findings("longhaul-core", "");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|(line, _)| *line == 2), "{found:?}");
    }
}
