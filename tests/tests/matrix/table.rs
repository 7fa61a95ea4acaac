//! What all cells came to: a table of them, and a failure that names each one that does not hold.

use std::fmt;

use agent_common::Tally;
use anyhow::{Result, ensure};
use e2e::Direction;

/// One cell: what the far end saw and what the programs counted, uplink first.
pub(crate) struct Row {
    pub(crate) kind: String,
    pub(crate) direction: Direction,
    pub(crate) wire: [Tally; 2],
    pub(crate) kernel: [Tally; 2],
    pub(crate) parse_errors: u64,
    /// Super-packets that the gateway has received, from either side.
    pub(crate) super_packets: u64,
    /// What the test sent in this direction, where it knows.
    pub(crate) sent: Option<Tally>,
}

impl Row {
    fn way(&self) -> usize {
        match self.direction {
            Direction::Uplink => 0,
            Direction::Downlink => 1,
        }
    }

    /// The programs against the wire, and the wire against what was sent.
    pub(crate) fn is_exact(&self) -> bool {
        let crossed = self.wire[self.way()];
        self.wire == self.kernel
            && self.parse_errors == 0
            && crossed.packets > 0
            && self.sent.is_none_or(|sent| sent == crossed)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let difference = |way: usize| i128::from(self.kernel[way].octets) - i128::from(self.wire[way].octets);
        let [up, down] = self.wire;
        let way = match self.direction {
            Direction::Uplink => "uplink",
            Direction::Downlink => "downlink",
        };
        write!(
            f,
            "{:34} {:8} {:6} {:9} {:6} {:9} {:6} {:+6} {:+6}",
            self.kind,
            way,
            up.packets,
            up.octets,
            down.packets,
            down.octets,
            self.super_packets,
            difference(0),
            difference(1),
        )?;
        if let Some(sent) = self.sent.filter(|sent| *sent != self.wire[self.way()]) {
            write!(f, "  sent {sent:?}")?;
        }
        if self.parse_errors > 0 {
            write!(f, "  {} parse errors", self.parse_errors)?;
        }
        if !self.is_exact() {
            write!(f, "  kernel {:?}", self.kernel)?;
        }
        Ok(())
    }
}

/// The cells of one link.
pub(crate) struct Table {
    title: String,
    rows: Vec<Row>,
    /// Cells whose packets came one by one although they were to be merged.
    unmerged: Vec<String>,
}

impl Table {
    pub(crate) fn new(title: String) -> Self {
        Self { title, rows: Vec::new(), unmerged: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// The same, where the cell says nothing unless packets were merged.
    pub(crate) fn add_merged(&mut self, row: Row) {
        if row.super_packets == 0 {
            self.unmerged.push(row.to_string());
        }
        self.add(row);
    }

    /// Prints the cells; fails with those that are not exact.
    #[expect(clippy::print_stdout, reason = "the table is what the matrix is for")]
    pub(crate) fn close(self) -> Result<()> {
        println!("\n{}: {} cells", self.title, self.rows.len());
        println!(
            "{:34} {:8} {:>6} {:>9} {:>6} {:>9} {:>6} {:>6} {:>6}",
            "kind", "way", "up", "octets", "down", "octets", "super", "diff", "diff"
        );
        for row in &self.rows {
            println!("{row}");
        }
        let wrong = self.rows.iter().filter(|row| !row.is_exact()).map(ToString::to_string).collect::<Vec<_>>();
        ensure!(wrong.is_empty(), "{}: not exact:\n{}", self.title, wrong.join("\n"));
        ensure!(self.unmerged.is_empty(), "{}: nothing was merged:\n{}", self.title, self.unmerged.join("\n"));
        Ok(())
    }
}
