//! `config`: the configuration file, without a daemon.

use std::{fs::File, path::Path};

use serde_json::json;

use crate::{
    cli::{
        args::{self, Global},
        cluster::shown,
        failure::{Failure, Outcome},
        output::Report,
    },
    clock::Clock,
    config::{self, Config, Problems},
};

/// Runs one of the verbs.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn run(global: &Global, verb: &args::Config) -> Outcome {
    let file = global
        .config
        .as_deref()
        .unwrap_or_else(|| Path::new(config::FILE_NAME));
    match verb {
        args::Config::Check => {
            let config = load(file)?;
            config::check_files(&config, Clock::system().now())
                .map_err(|problems| wrong(file, &problems))?;
            let answer = json!({"file": shown(file), "ok": true});
            Ok(Report::new(format!("{} is good", shown(file)), &answer))
        }
        args::Config::Show => {
            let config = load(file)?;
            Ok(Report::new(config.show(), &config.settings()))
        }
        args::Config::Example => {
            let example = config::example::example();
            let answer = json!({"example": example});
            Ok(Report::new(example, &answer))
        }
    }
}

/// Reads a configuration for a command that can't do without.
pub(super) fn load(file: &Path) -> Outcome<Config> {
    config::load(file).map_err(|problems| wrong(file, &problems))
}

fn wrong(file: &Path, problems: &Problems) -> Failure {
    let next = if File::open(file).is_err() {
        "name another file with --config, or make one with emccd init".to_owned()
    } else {
        format!(
            "correct the file and check it with: emccd config check --config {}",
            shown(file)
        )
    };
    Failure::from_error("the configuration can't be used", problems, next)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_problem_of_a_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("emccd.toml");
        fs::write(&file, "version = 1\nclutser-id = \"berlin\"\n").unwrap();
        let global = Global {
            config: Some(file),
            ..Global::default()
        };
        let text = run(&global, &args::Config::Check).unwrap_err().to_string();
        assert!(
            text.contains("cluster-id") && text.contains("line 2"),
            "{text}"
        );
        let missing = Global {
            config: Some(dir.path().join("none.toml")),
            ..Global::default()
        };
        let text = run(&missing, &args::Config::Show).unwrap_err().to_string();
        assert!(text.contains("none.toml"), "{text}");
        assert!(!text.contains("correct the file"), "{text}");
    }

    #[test]
    fn programs_get_values_and_not_their_toml() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("emccd.toml");
        fs::write(&file, config::example::example()).unwrap();
        let global = Global {
            config: Some(file),
            ..Global::default()
        };
        let settings = run(&global, &args::Config::Show).unwrap().json;
        let value = |key: &str| {
            let all = settings.as_array().unwrap();
            all.iter().find(|s| s["key"] == key).unwrap()["value"].clone()
        };
        assert_eq!(value("version"), 1);
        assert_eq!(value("federation.heartbeat"), "5s");
        assert_eq!(value("admin.groups.viewer"), json!([]));
    }

    #[test]
    fn the_example_is_a_configuration() {
        let report = run(&Global::default(), &args::Config::Example).unwrap();
        config::parse(&report.text, Path::new("/etc/emccd/emccd.toml")).unwrap();
    }
}
