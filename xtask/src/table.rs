//! Lays out rows of text in columns. What the rows mean is the caller's business.

/// Lays out a header and rows in columns two spaces apart, one line each.
pub(crate) fn render<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let header = header.map(str::to_owned);
    let lines = || std::iter::once(&header).chain(rows);
    let widths: [usize; N] =
        std::array::from_fn(|column| lines().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in lines() {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["format".to_owned(), "0.4 s".to_owned()], ["éé".to_owned(), "12.0 s".to_owned()]];
        let text = render(["step", "time"], &rows);
        assert_eq!(text, "step    time\nformat  0.4 s\néé      12.0 s\n");
    }
}
