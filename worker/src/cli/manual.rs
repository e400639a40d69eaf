//! The command line's manual page and completions, made from its definition.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;

/// No such page.
#[derive(Debug, thiserror::Error)]
pub enum ManualError {
    /// There is no such command.
    #[error("there is no command `{0}`; `worker --help` lists them")]
    NoCommand(String),
    /// It cannot be written down.
    #[error("cannot make the manual page: {0}")]
    Write(#[from] std::io::Error),
}

/// The completions for a shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "worker", &mut script);
    script
}

/// The manual page of the program or of one command, for `man -l -`.
pub fn page(command: Option<&str>) -> Result<Vec<u8>, ManualError> {
    let mut program = Cli::command();
    program.build();
    let described = match command {
        None => program,
        Some(name) => {
            let found = program.find_subcommand(name).cloned();
            found.ok_or_else(|| ManualError::NoCommand(name.to_owned()))?
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(described).render(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_in_the_page_and_in_the_completions() {
        let page = String::from_utf8(page(None).unwrap()).unwrap().replace('\\', "");
        let script = String::from_utf8(completions(Shell::Bash)).unwrap();
        for argument in Cli::command().get_arguments().filter(|it| !it.is_hide_set()) {
            let flag = format!("--{}", argument.get_long().unwrap());
            assert!(page.contains(&flag), "{flag} is not in the manual page");
            assert!(script.contains(&flag), "{flag} is not in the completions");
        }
    }

    #[test]
    fn commands_have_pages_and_others_are_refused() {
        assert!(String::from_utf8(page(Some("demo")).unwrap()).unwrap().contains("demo"));
        assert!(page(Some("nothing")).unwrap_err().to_string().contains("nothing"));
    }
}
