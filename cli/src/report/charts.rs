//! Bar charts as inline SVG, drawn by plotters and coloured by the page's style sheet.

use plotters::coord::ranged1d::SegmentValue;
use plotters::prelude::{
    ChartBuilder, Color as _, IntoDrawingArea as _, IntoFont as _, IntoSegmentedCoord as _,
    LabelAreaPosition, RGBColor, Rectangle, SVGBackend, Text,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Bars with labels. `over` are parts of the bars, such as failed calls.
pub(super) struct Bars {
    pub(super) labels: Vec<String>,
    pub(super) values: Vec<u64>,
    pub(super) over: Vec<u64>,
}

const SIZE: (u32, u32) = (640, 260);
const LEFT: u32 = 52;
const RIGHT: u32 = 16;
const FONT: (&str, u32) = ("sans-serif", 15);

/// Maximum width of a digit.
const DIGIT: u32 = 9;

/// Largest number that is drawn: a row may contain any number.
const MOST: u64 = 1_000_000_000_000_000;

// Placeholder colours, which `classes` replaces.
const LABEL: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(2, 2, 2);
const BAR: RGBColor = RGBColor(3, 3, 3);
const OVER: RGBColor = RGBColor(4, 4, 4);

impl Bars {
    /// Draws the content of an `svg` element. Returns it with the element's `viewBox`, or `None` if there is
    /// nothing to draw.
    pub(super) fn draw(&self) -> Option<(String, String)> {
        let mut svg = String::new();
        self.draw_to(&mut svg).ok()?;
        let (_, inside) = svg.split_once('>')?;
        let inside = inside.trim_end().strip_suffix("</svg>")?;
        Some((classes(inside), format!("0 0 {} {}", SIZE.0, SIZE.1)))
    }

    fn draw_to(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let Some(last) = self.values.len().checked_sub(1) else {
            return Err("there is nothing to draw".into());
        };
        let bars = u32::try_from(self.values.len())?;
        let slot = (SIZE.0 - LEFT - RIGHT) / bars;
        let highest = self.values.iter().copied().max().unwrap_or(0).clamp(1, MOST);
        // Room for the number above the highest bar.
        let top = highest + highest.div_ceil(10);
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin_top(6)
            .margin_right(RIGHT)
            .set_label_area_size(LabelAreaPosition::Left, LEFT)
            .set_label_area_size(LabelAreaPosition::Bottom, 30)
            .build_cartesian_2d((0..last).into_segmented(), 0..top)?;
        let label = FONT.into_font().color(&LABEL);
        // Overlapping labels are left out; the last one is kept.
        let widest = self
            .labels
            .iter()
            .map(|label| label.chars().count())
            .max()
            .unwrap_or(0);
        let room = u32::try_from(widest)? * DIGIT;
        let every = usize::try_from(room.div_ceil(slot.max(1)).max(1))?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(BAR.mix(0.0))
            .bold_line_style(GRID)
            .axis_style(GRID)
            .x_labels(self.values.len())
            .y_labels(5)
            .label_style(label)
            .x_label_formatter(&|at| match at {
                SegmentValue::CenterOf(at) if (last - (*at).min(last)).is_multiple_of(every) => {
                    self.labels.get(*at).cloned().unwrap_or_default()
                }
                _ => String::new(),
            })
            .y_label_formatter(&|value| short(*value))
            .draw()?;
        let margin = slot / 6;
        for (values, colour) in [(&self.values, BAR), (&self.over, OVER)] {
            chart.draw_series(values.iter().enumerate().filter(|(_, value)| **value > 0).map(
                |(at, value)| {
                    let corners = [
                        (SegmentValue::Exact(at), 0),
                        (SegmentValue::Exact(at + 1), (*value).min(MOST)),
                    ];
                    let mut bar = Rectangle::new(corners, colour.filled());
                    bar.set_margin(0, 0, margin, margin);
                    bar
                },
            ))?;
        }
        let style = FONT
            .into_font()
            .color(&LABEL)
            .pos(Pos::new(HPos::Center, VPos::Bottom));
        let numbers = self.values.iter().enumerate().filter(|(_, value)| **value > 0);
        chart.draw_series(numbers.filter_map(|(at, value)| {
            let text = short(*value);
            let fits = u32::try_from(text.len()).is_ok_and(|digits| digits * DIGIT <= slot);
            let place = (SegmentValue::CenterOf(at), (*value).min(MOST));
            fits.then(|| Text::new(text, place, style.clone()))
        }))?;
        root.present()?;
        Ok(())
    }
}

/// Replaces colours with classes, so that the style sheet colours them for light, dark and print.
fn classes(svg: &str) -> String {
    let mut svg = svg.to_owned();
    for (RGBColor(red, green, blue), class) in
        [(LABEL, "label"), (GRID, "grid"), (BAR, "bar"), (OVER, "over")]
    {
        for attribute in ["fill", "stroke"] {
            let drawn = format!("{attribute}=\"#{red:02X}{green:02X}{blue:02X}\"");
            svg = svg.replace(&drawn, &format!("class=\"{class}\""));
        }
    }
    svg.replace(" font-family=\"sans-serif\"", "")
}

/// Formats a number in few characters.
fn short(value: u64) -> String {
    let scaled = |unit: u64, name: &str| {
        let (whole, tenth) = (value / unit, value % unit / (unit / 10));
        match tenth {
            0 => format!("{whole}{name}"),
            _ if whole >= 100 => format!("{whole}{name}"),
            _ => format!("{whole}.{tenth}{name}"),
        }
    };
    match value {
        0..10_000 => value.to_string(),
        10_000..1_000_000 => scaled(1000, "k"),
        1_000_000..1_000_000_000 => scaled(1_000_000, "M"),
        _ => scaled(1_000_000_000, "G"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(values: Vec<u64>) -> Bars {
        Bars {
            labels: values.iter().map(|value| format!("<{value}>")).collect(),
            over: values.iter().map(|value| value / 2).collect(),
            values,
        }
    }

    #[test]
    fn bars_have_classes_and_no_colours() {
        let (svg, view_box) = bars(vec![1, 20, 0]).draw().unwrap();
        assert_eq!(view_box, "0 0 640 260");
        assert_eq!(svg.matches("class=\"bar\"").count(), 2, "{svg}");
        assert_eq!(svg.matches("class=\"over\"").count(), 1, "{svg}");
        assert!(!svg.contains("=\"#"), "{svg}");
        assert!(svg.contains("&lt;20&gt;") && !svg.contains("<20>"), "{svg}");
    }

    #[test]
    fn any_number_can_be_drawn() {
        for values in [vec![0], vec![u64::MAX; 3], vec![1; 1000], vec![0, u64::MAX, 1]] {
            assert!(bars(values).draw().is_some());
        }
        assert!(bars(Vec::new()).draw().is_none());
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0, "0"),
            (9999, "9999"),
            (10_000, "10k"),
            (12_340, "12.3k"),
            (1_500_000, "1.5M"),
            (2_000_000_000, "2G"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
