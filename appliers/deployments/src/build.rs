//! Builds on this node: what an app's build command makes of a commit, in a folder named after all that it depends on.
//!
//! A folder that is there is whole: the work is done beside it and moved into place at the end, so that a crash leaves
//! nothing that looks finished. What a crash does leave (half a tree, a build command that goes on) is removed when the
//! node starts.
//!
//! Limits: [`BUILD_TIME`]; the log of a build is cut at [`LOG_BYTES_MAX`].

use crate::driver::process::last_line;
use crate::driver::procfs;
use crate::git::{Git, GitError};
use nix::sys::signal::{Signal, killpg};
use onward_statemachine::deployments::builds::Inputs;
use sha2::{Digest, Sha256};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long a build command may run.
pub const BUILD_TIME: Duration = Duration::from_secs(30 * 60);
/// The most of a build's output that is kept, in bytes.
pub const LOG_BYTES_MAX: u64 = 16 << 20;

/// The variable that marks the processes of a build.
const MARK: &str = "ONWARD_BUILD";

/// Why a build is not there.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Its source could not be had.
    #[error(transparent)]
    Git(#[from] GitError),
    /// Its folder could not be written.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// How it failed.
        error: std::io::Error,
    },
    /// The build command failed.
    #[error("the build command {how}{}", said(.last.as_deref()))]
    Command {
        /// How it ended.
        how: String,
        /// The last line of its output.
        last: Option<String>,
    },
}

fn said(last: Option<&str>) -> String {
    last.map_or_else(String::new, |line| format!("; its last output: {line}"))
}

impl BuildError {
    /// Whether trying again would most likely end the same way.
    pub fn is_permanent(&self) -> bool {
        match self {
            BuildError::Git(error) => error.is_permanent(),
            BuildError::Io { .. } => false,
            BuildError::Command { .. } => true,
        }
    }

    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| BuildError::Io { what, error }
    }
}

/// The built trees of this node.
#[derive(Debug)]
pub struct Builds {
    folder: PathBuf,
    scope: String,
}

impl Builds {
    /// Built trees below `folder`; `scope` tells this node's build processes from others.
    pub fn new(folder: PathBuf, scope: String) -> Self {
        Builds { folder, scope }
    }

    fn name(inputs: &Inputs) -> String {
        let text = serde_json::to_vec(inputs).expect("inputs have nothing that JSON refuses");
        let digest = Sha256::digest(&text);
        digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Where the tree of these inputs is, once it is built.
    pub fn tree(&self, inputs: &Inputs) -> PathBuf {
        self.folder.join(Self::name(inputs))
    }

    /// Whether the tree is there, which is to say whole.
    pub fn has(&self, inputs: &Inputs) -> bool {
        self.tree(inputs).is_dir()
    }

    /// The log of the last build of these inputs.
    pub fn log_file(&self, inputs: &Inputs) -> PathBuf {
        self.folder.join(format!("{}.log", Self::name(inputs)))
    }

    /// Removes what an earlier process of this node left half done.
    pub fn clean(&self) {
        let mark = format!("{MARK}={}", self.scope);
        for left in procfs::marked(&mark).iter().filter(|left| left.value.is_empty()) {
            let _ = killpg(
                nix::unistd::Pid::from_raw(left.group.cast_signed()),
                Signal::SIGKILL,
            );
        }
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in entries {
            if entry.file_name().to_string_lossy().starts_with("new-") {
                let path = entry.path();
                let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
            }
        }
    }

    /// Builds, unless the tree is there.
    pub async fn make(&self, git: &Git, repository: &str, inputs: &Inputs) -> Result<PathBuf, BuildError> {
        let tree = self.tree(inputs);
        if self.has(inputs) {
            return Ok(tree);
        }
        let work = self.folder.join(format!("new-{}", uuid::Uuid::new_v4()));
        let result = self.make_in(&work, git, repository, inputs).await;
        if result.is_err() {
            let _ = tokio::fs::remove_dir_all(&work).await;
            result?;
        }
        match tokio::fs::rename(&work, &tree).await {
            Ok(()) => Ok(tree),
            // Somebody was faster; one is as good as the other.
            Err(_) if self.has(inputs) => {
                let _ = tokio::fs::remove_dir_all(&work).await;
                Ok(tree)
            }
            Err(error) => Err(BuildError::io(format!("moving the build to {}", tree.display()))(
                error,
            )),
        }
    }

    async fn make_in(
        &self,
        work: &Path,
        git: &Git,
        repository: &str,
        inputs: &Inputs,
    ) -> Result<(), BuildError> {
        tokio::fs::create_dir_all(work)
            .await
            .map_err(BuildError::io(format!("making {}", work.display())))?;
        git.export(repository, &inputs.commit, work).await?;
        if let Some(command) = &inputs.command {
            self.run(work, command, inputs).await?;
        }
        Ok(())
    }

    async fn run(&self, work: &Path, text: &str, inputs: &Inputs) -> Result<(), BuildError> {
        let log = self.log_file(inputs);
        let home = work.with_extension("home");
        tokio::fs::create_dir_all(&home)
            .await
            .map_err(BuildError::io(format!("making {}", home.display())))?;
        // Output goes through a pipe, so that it can be cut. One pipe for both, in the order written.
        let (reader, writer) = std::io::pipe().map_err(BuildError::io("making a pipe"))?;
        let errors = writer.try_clone().map_err(BuildError::io("making a pipe"))?;
        let mut command = tokio::process::Command::new("/bin/sh");
        command
            .args(["-c", text])
            .current_dir(work)
            .env_clear()
            .env(
                "PATH",
                std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()),
            )
            .env("LANG", "C.UTF-8")
            .env("HOME", &home)
            .env("ONWARD_COMMIT", inputs.commit.as_str())
            .envs(&inputs.env)
            .env(MARK, &self.scope)
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(errors)
            .process_group(0);
        let mut child = command
            .spawn()
            .map_err(BuildError::io("starting the build command"))?;
        // The command holds the pipe's writing end, which must be open in nobody once the build has ended.
        drop(command);
        let group = Group(child.id().expect("a child that was not waited for has an id"));
        let copied = tokio::spawn(keep_output(reader, log.clone()));
        let status = tokio::time::timeout(BUILD_TIME, child.wait()).await;
        drop(group);
        let _ = copied.await;
        let _ = tokio::fs::remove_dir_all(&home).await;
        let how = match status {
            Ok(Ok(status)) if status.success() => return Ok(()),
            Ok(Ok(status)) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exited with status {code}"),
                (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
            },
            Ok(Err(error)) => return Err(BuildError::io("waiting for the build command")(error)),
            Err(_) => format!("ran longer than {} s", BUILD_TIME.as_secs()),
        };
        let last = last_line(&log);
        Err(BuildError::Command { how, last })
    }
}

/// A process group that ends with this value: when the build has ended, or is no longer wanted.
struct Group(u32);

impl Drop for Group {
    fn drop(&mut self) {
        // What is left of it, if anything is.
        let _ = killpg(nix::unistd::Pid::from_raw(self.0.cast_signed()), Signal::SIGKILL);
    }
}

/// Writes a build's output to its log, as far as that goes.
async fn keep_output(reader: std::io::PipeReader, log: PathBuf) -> std::io::Result<()> {
    let mut reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into())?;
    let mut file = tokio::fs::File::create(&log).await?;
    let mut buffer = vec![0; 64 * 1024];
    let mut room = LOG_BYTES_MAX;
    loop {
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        let kept = room.min(count as u64);
        file.write_all(&buffer[..kept as usize]).await?;
        room -= kept;
        if kept > 0 && room == 0 {
            file.write_all(b"\n(the rest of the output is not kept)\n")
                .await?;
        }
    }
    file.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Repository;
    use std::collections::BTreeMap;

    #[tokio::test]
    async fn builds_once_and_leaves_nothing_half_done() {
        let scratch = tempfile::tempdir().unwrap();
        let repository = Repository::new(scratch.path().join("source"));
        let commit = repository.commit(&[("a", "1")]);
        let git = Git::new(scratch.path().join("cache"));
        git.fetch(&repository.url(), &commit, "main").await.unwrap();
        let builds = Builds::new(
            scratch.path().join("builds"),
            format!("test/{}", std::process::id()),
        );
        let counter = scratch.path().join("count");
        let inputs = |command: String| Inputs {
            commit: commit.clone(),
            command: Some(command),
            env: BTreeMap::from([("WHAT".to_owned(), "made".to_owned())]),
        };
        let good = inputs(format!(
            "echo x >>{}; echo $WHAT-$(cat a) >out",
            counter.display()
        ));
        for _ in 0..2 {
            let tree = builds.make(&git, &repository.url(), &good).await.unwrap();
            assert_eq!(std::fs::read_to_string(tree.join("out")).unwrap(), "made-1\n");
        }
        assert_eq!(std::fs::read_to_string(&counter).unwrap(), "x\n");

        let bad = inputs("echo it broke >&2; exit 3".to_owned());
        let error = builds.make(&git, &repository.url(), &bad).await.unwrap_err();
        assert!(error.is_permanent());
        assert_eq!(
            error.to_string(),
            "the build command exited with status 3; its last output: it broke"
        );
        assert!(!builds.has(&bad));

        // As after a crash: a half-done tree, and a build process that lives on.
        let half = scratch.path().join("builds/new-half");
        std::fs::create_dir(&half).unwrap();
        let mut orphan = std::process::Command::new("/bin/sleep");
        std::os::unix::process::CommandExt::process_group(&mut orphan, 0);
        let mut orphan = orphan.arg("600").env(MARK, &builds.scope).spawn().unwrap();
        while procfs::marked(&format!("{MARK}={}", builds.scope)).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        builds.clean();
        assert_eq!(orphan.wait().unwrap().signal(), Some(9));
        assert!(!half.exists());
        assert!(builds.has(&good));
    }
}
