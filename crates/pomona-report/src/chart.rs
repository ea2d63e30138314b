//! Line charts as SVG text: no fonts, scripts or files but the text itself.

use std::fmt::Write;

/// A chart of lines over named places.
#[derive(Clone, Debug, Default)]
pub struct LineChart {
    /// Above the chart.
    pub title: String,
    /// Along the vertical axis.
    pub unit: String,
    /// Along the horizontal axis.
    pub places: Vec<String>,
    /// Places between which a line is drawn from top to bottom, with a word: where the bottleneck is, say.
    pub marks: Vec<(usize, String)>,
    /// Lines.
    pub lines: Vec<Line>,
}

/// A line.
#[derive(Clone, Debug)]
pub struct Line {
    /// In the legend.
    pub name: String,
    /// A value a place; a gap where there is none.
    pub values: Vec<Option<f64>>,
}

const WIDTH: f64 = 860.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 46.0;
const HEIGHT: f64 = 300.0;
/// Room for slanted names.
const BOTTOM: f64 = 120.0;
/// Told apart also by those who see few colours; each line has a symbol of its own besides.
const COLOURS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"];

/// The chart as SVG.
pub fn line_chart(chart: &LineChart) -> String {
    let values = || chart.lines.iter().flat_map(|l| l.values.iter().flatten()).filter(|v| v.is_finite());
    let (low, high) = values().fold((0.0_f64, 0.0_f64), |(l, h), v| (l.min(*v), h.max(*v)));
    let step = nice((high - low).max(f64::MIN_POSITIVE) / 5.0);
    let (low, high) = ((low / step).floor() * step, ((high / step).ceil() * step).max(low + step));
    let wide = (WIDTH - LEFT - RIGHT) / chart.places.len().max(1) as f64;
    let x = |i: usize| LEFT + wide * (i as f64 + 0.5);
    let y = |v: f64| TOP + HEIGHT * (1.0 - (v - low) / (high - low));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {h}\" width=\"{WIDTH}\" height=\"{h}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        h = TOP + HEIGHT + BOTTOM
    );
    // Writing to a String does not fail.
    let mut put = |line: String| _ = writeln!(out, "{line}");
    put(format!("<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>", escaped(&chart.title)));
    put(format!("<text x=\"{LEFT}\" y=\"{}\" fill=\"#555\">{}</text>", TOP - 8.0, escaped(&chart.unit)));
    let ticks = ((high - low) / step).round() as usize;
    for k in 0..=ticks.min(20) {
        let v = low + step * k as f64;
        put(format!(
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\" fill=\"#555\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y(v) + 4.0,
            number(v, step),
            y = y(v),
        ));
    }
    for (i, place) in chart.places.iter().enumerate() {
        let at = (x(i), TOP + HEIGHT + 14.0);
        put(format!(
            "<text x=\"{0:.1}\" y=\"{1:.1}\" text-anchor=\"end\" transform=\"rotate(-45 {0:.1} {1:.1})\" font-size=\"11\">{2}\
             </text>",
            at.0,
            at.1,
            escaped(place)
        ));
    }
    for (i, word) in &chart.marks {
        let at = x(*i) - wide / 2.0;
        put(format!(
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\" stroke=\"#999\" stroke-dasharray=\"4 3\"/><text \
             x=\"{:.1}\" y=\"{:.1}\" fill=\"#777\" font-size=\"11\">{}</text>",
            TOP + HEIGHT,
            at + 4.0,
            TOP + 12.0,
            escaped(word)
        ));
    }
    for (k, line) in chart.lines.iter().enumerate() {
        let colour = COLOURS[k % COLOURS.len()];
        let points = line.values.iter().enumerate().filter_map(|(i, v)| Some((x(i), y((*v)?))));
        let points: Vec<(f64, f64)> = points.filter(|p| p.1.is_finite()).collect();
        let text: Vec<String> = points.iter().map(|(a, b)| format!("{a:.1},{b:.1}")).collect();
        put(format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            text.join(" ")
        ));
        for p in &points {
            put(symbol(k, *p, colour));
        }
        let row = TOP + 12.0 + 20.0 * k as f64;
        put(symbol(k, (WIDTH - RIGHT + 18.0, row - 4.0), colour));
        put(format!("<text x=\"{:.1}\" y=\"{row:.1}\">{}</text>", WIDTH - RIGHT + 30.0, escaped(&line.name)));
    }
    out + "</svg>\n"
}

fn symbol(k: usize, (x, y): (f64, f64), colour: &str) -> String {
    match k % 3 {
        0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"),
        1 => {
            format!(
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"7\" fill=\"{colour}\"/>",
                x - 3.5,
                y - 3.5
            )
        }
        _ => format!("<path d=\"M{x:.1} {:.1} l4.5 8 h-9 z\" fill=\"{colour}\"/>", y - 5.0),
    }
}

/// 1, 2 or 5 times a power of ten, at or above `v`.
fn nice(v: f64) -> f64 {
    let power = 10_f64.powf(v.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= v * 0.999).unwrap_or(10.0 * power)
}

fn number(v: f64, step: f64) -> String {
    let digits = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    let text = format!("{v:.digits$}");
    if text.starts_with("-0") && text.parse() == Ok(0.0) { text[1..].to_owned() } else { text }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_a_point_a_value_and_round_ticks() {
        let chart = LineChart {
            title: "a < b & c".into(),
            unit: "L1".into(),
            places: ["x", "y", "z"].map(str::to_owned).to_vec(),
            marks: vec![(1, "middle".into())],
            lines: vec![
                Line { name: "25 %".into(), values: vec![Some(0.013), None, Some(0.021)] },
                Line { name: "75 %".into(), values: vec![Some(0.05), Some(0.3), Some(0.1)] },
            ],
        };
        let svg = line_chart(&chart);
        assert!(svg.contains("a &lt; b &amp; c") && svg.ends_with("</svg>\n"));
        // Two points and a legend's.
        assert_eq!(svg.matches("<circle").count(), 3);
        assert_eq!(svg.matches("width=\"7\"").count(), 4);
        assert!(svg.contains(">0.3<") && svg.contains(">0.0<") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn an_empty_chart_is_sound() {
        let svg = line_chart(&LineChart::default());
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
