"""The lab's style sheet: JupyterLab's own colours, so that it suits light and dark themes; and what no widget can say of itself."""

from __future__ import annotations

from typing import Final

_DRESS: Final = """
const sheet = this;
const dress = left => {
  const lab = sheet.closest('.scaleml-lab'), said = lab && lab.querySelector('.scaleml-said');
  if (!said) return left && requestAnimationFrame(() => dress(left - 1));
  const own = event => event.target.toggleAttribute('data-lm-suppress-shortcuts', !(event.ctrlKey || event.metaKey));
  for (const name of ['focusin', 'keydown', 'keyup']) lab.addEventListener(name, own, true);
  for (const [name, value] of [['role', 'status'], ['aria-live', 'polite'], ['aria-atomic', 'true']])
    said.setAttribute(name, value);
  lab.setAttribute('role', 'group');
  lab.setAttribute('aria-label', 'scaleml lab');
};
dress(600);
"""
"""Run by the page when it shows the sheet. Keys that are pressed in the lab are the lab's: in JupyterLab's command mode "dd" in a menu
would delete the cell, and arrows would leave it. With Ctrl or Cmd held they are JupyterLab's, to save, say. And the status is one that
screen readers wait to hear: no widget can set such attributes."""

SHEET: Final = (
    f'<style onload="{" ".join(_DRESS.split())}">'
    """
.scaleml-lab { --scaleml-ink: var(--jp-ui-font-color1, currentColor); --scaleml-faint: var(--jp-border-color2, rgba(127, 127, 127, 0.4));
  color: var(--jp-ui-font-color1, inherit); gap: 5px; padding: 2px 4px; box-sizing: border-box; container-type: inline-size }
.scaleml-lab .scaleml-title { margin: 0; font-size: 13px; font-weight: 600; line-height: 22px; white-space: nowrap }
.scaleml-lab .scaleml-panel, .scaleml-lab .scaleml-card {
  border: 1px solid var(--jp-border-color2, rgba(127, 127, 127, 0.35)); border-radius: 6px; padding: 6px 10px; overflow: hidden }
.scaleml-lab .scaleml-soft { color: var(--jp-ui-font-color2, inherit) }
.scaleml-lab .scaleml-head { font-size: 11px; line-height: 16px; color: var(--jp-ui-font-color2, inherit); padding-left: 2px }
.scaleml-lab .scaleml-words { font-size: 14px; line-height: 1.45; min-height: 41px }
.scaleml-lab .scaleml-said { position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden; clip-path: inset(50%) }
.scaleml-lab .scaleml-summary { font-size: 12px; line-height: 20px; color: var(--jp-ui-font-color2, inherit) }
.scaleml-lab .scaleml-tools { align-items: center; overflow: visible }
.scaleml-lab .scaleml-fold { margin-left: auto }
.scaleml-lab:has(.scaleml-fold input:not(:checked)) .scaleml-notes { min-height: 0 }
.scaleml-lab:has(.scaleml-fold input:not(:checked)) .scaleml-setup,
.scaleml-lab:has(.scaleml-fold input:checked) .scaleml-summary { display: none }
.scaleml-lab .widget-label, .scaleml-lab .widget-label-basic { color: inherit }
.scaleml-lab .scaleml-short > input { width: 76px; flex: 0 0 auto }
.scaleml-lab .scaleml-medium > input { width: 116px; flex: 0 0 auto }
.scaleml-lab .scaleml-long > input { width: 320px; max-width: 100%; flex: 0 1 auto }
.scaleml-lab .scaleml-refused > input { border-color: var(--jp-error-color1, #c62828) !important;
  outline: 1px solid var(--jp-error-color1, #c62828) }
.scaleml-lab .scaleml-above > :is(select, input) { flex: 0 0 auto; height: var(--jp-widgets-inline-height, 28px) }
.scaleml-lab .scaleml-above { flex-direction: column; align-items: stretch; height: auto }
.scaleml-lab .scaleml-above > label { font-size: 11px; line-height: 16px; height: 16px; text-align: left;
  color: var(--jp-ui-font-color2, inherit) }
.scaleml-lab .scaleml-silent > label { position: absolute; width: 1px !important; height: 1px; overflow: hidden; clip-path: inset(50%) }
.scaleml-lab .scaleml-silent { position: relative }
.scaleml-lab :is(button, input, select):focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: 1px }
.scaleml-lab .scaleml-notes { min-height: 20px; line-height: 20px }
.scaleml-lab .scaleml-error { color: var(--jp-error-color1, #c62828) }
.scaleml-lab .scaleml-keys { text-align: center }
.scaleml-lab .scaleml-about { font-size: 11px; line-height: 22px; text-align: right; padding-left: 12px;
  color: var(--jp-ui-font-color2, inherit); white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
.scaleml-lab .scaleml-verdict { font-size: 15px; font-weight: 600 }
.scaleml-lab .scaleml-key { margin-left: 10px; font-size: 11px; white-space: nowrap }
.scaleml-lab .scaleml-key i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 4px }
.scaleml-lab .scaleml-legend { font-size: 12px; line-height: 20px }
.scaleml-lab .scaleml-legend .widget-checkbox { font-size: 12px; height: auto; min-height: 22px; max-width: 100% }
.scaleml-lab .scaleml-legend label { height: auto; line-height: 20px; overflow-wrap: anywhere; white-space: normal }
.scaleml-lab .scaleml-legend svg { vertical-align: middle; margin-right: 6px }
.scaleml-lab .scaleml-log { margin-left: auto }
.bqplot_mark_tooltip { background: var(--jp-layout-color1, Canvas) !important; color: var(--jp-ui-font-color1, CanvasText);
  border: 1px solid var(--jp-border-color1, rgba(127, 127, 127, 0.5)); border-radius: 4px; padding: 3px 8px; font-size: 12px }
.scaleml-lab .bqplot { --bq-axislabel-font: 11px sans-serif }
.scaleml-lab .widget-html, .scaleml-lab .widget-html-content { line-height: inherit; height: auto }
.scaleml-lab .widget-html, .scaleml-lab .widget-html-content { min-width: 0 }
.scaleml-lab .widget-html-content { flex: 1 1 auto }
.scaleml-lab .scaleml-card { box-sizing: border-box; max-width: 100% }
.scaleml-lab .bqplot path.line[style*="dasharray: 10, 10"] { stroke-dasharray: 8, 4 !important }
.scaleml-lab .bqplot path.line[style*="dasharray: 2, 10"] { stroke-dasharray: 3, 2.5 !important }
.scaleml-lab .widget-button { margin-right: 4px }
.scaleml-lab .widget-checkbox { align-items: center }
.scaleml-lab .widget-checkbox label { display: inline-flex; align-items: center }
.scaleml-lab .widget-checkbox input[type="checkbox"] { flex: 0 0 auto; margin: 0 6px 0 0 }
.scaleml-lab .scaleml-setup, .scaleml-lab .scaleml-setup .widget-hbox { row-gap: 4px }
.scaleml-lab .scaleml-form, .scaleml-lab .scaleml-pages > * { flex-flow: row wrap; align-items: center; min-width: 0 }
.scaleml-lab .scaleml-strategies { display: grid; width: 100%; gap: 4px 10px; align-items: center;
  grid-template-columns: max-content minmax(0, max-content) max-content }
.scaleml-lab .scaleml-strategies > :nth-child(3n + 1) { grid-column: 1 }
.scaleml-lab .scaleml-strategies > :nth-child(3n + 2) { grid-column: 2 }
.scaleml-lab .scaleml-strategies > :nth-child(3n) { grid-column: 3 }
.scaleml-lab .scaleml-strategies > .scaleml-tick:has(input:not(:checked)) + .scaleml-form,
.scaleml-lab .scaleml-strategies > .scaleml-tick:has(input:not(:checked)) + .scaleml-form + * { display: none }
.scaleml-lab .bqplot .object_grp .dot { opacity: 0 !important; fill: currentColor !important }
.scaleml-lab .bqplot .object_grp:hover .dot { opacity: 0.5 !important }
.scaleml-lab .scaleml-group > .widget-hbox { margin-right: 4px !important }
.scaleml-lab .scaleml-group { align-items: center; margin-right: 14px; max-width: 100% }
.scaleml-lab .scaleml-group > * { flex: 0 0 auto }
.scaleml-lab .scaleml-group > .scaleml-pages { flex: 0 1 auto; min-width: 0 }
.scaleml-lab .scaleml-keeping { margin-top: 4px; row-gap: 4px }
.scaleml-lab .scaleml-links { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 6px }
.scaleml-lab .scaleml-links > .widget-button { width: auto; text-decoration: none }
.scaleml-lab .scaleml-links > details[open] { flex: 1 1 100%; min-width: 0 }
.scaleml-lab .scaleml-links summary { cursor: pointer; width: max-content }
.scaleml-lab .scaleml-links pre { margin: 4px 0; padding: 6px 8px; overflow: auto; user-select: all; line-height: 1.35;
  border: 1px solid var(--scaleml-faint); border-radius: 4px }
.scaleml-lab .scaleml-links :is(a, summary):focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: 1px }
.scaleml-lab .scaleml-narrow { display: none }
.scaleml-lab .scaleml-narrow th, .scaleml-lab .scaleml-narrow td { padding: 2px 4px !important }
.scaleml-lab .scaleml-narrow :is(th, td):first-child { min-width: 7em !important; overflow-wrap: anywhere }
.scaleml-lab .scaleml-narrow > * + * { margin-top: 6px }
@container (max-width: 1260px) {
  .scaleml-lab .scaleml-wide { display: none }
  .scaleml-lab .scaleml-narrow { display: block }
}
@container (max-width: 700px) {
  .scaleml-lab .scaleml-strategies { grid-template-columns: max-content 1fr; grid-auto-flow: row dense }
  .scaleml-lab .scaleml-strategies > .scaleml-form { grid-column: 1 / -1; padding-left: 22px }
  .scaleml-lab .scaleml-strategies > .widget-html.scaleml-form { display: none }
  .scaleml-lab .scaleml-strategies > :nth-child(3n) { grid-column: 2 }
  .scaleml-lab .scaleml-group { flex-wrap: wrap }
  .scaleml-lab .scaleml-group > .scaleml-pages { order: 1; flex: 0 1 100% }
}
[data-jp-theme-light="false"] .scaleml-lab .widget-dropdown > select { background-image: url("data:image/svg+xml,%3Csvg \
xmlns='http://www.w3.org/2000/svg' viewBox='0 0 18 18'%3E%3Cpath \
d='M5 7l4 4 4-4' fill='none' stroke='%23ccc' stroke-width='1.6'/%3E%3C/svg%3E") }
.scaleml-bar { height: 6px; margin: 2px 0; border-radius: 3px; overflow: hidden;
  background: var(--jp-border-color2, rgba(127, 127, 127, 0.35)) }
.scaleml-bar i { display: block; height: 100%; background: #0072B2 }
</style>"""
)
