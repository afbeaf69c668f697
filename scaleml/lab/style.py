"""The lab's style sheet: JupyterLab's own colours, so that it suits light and dark themes."""

from __future__ import annotations

from typing import Final

SHEET: Final = """<style>
.scaleml-lab { color: var(--jp-ui-font-color1, #222); gap: 8px; padding: 2px 4px; box-sizing: border-box; container-type: inline-size }
.scaleml-lab .scaleml-title { margin: 0; font-size: 13px; font-weight: 600; line-height: 22px; white-space: nowrap }
.scaleml-lab .scaleml-panel, .scaleml-lab .scaleml-card {
  border: 1px solid var(--jp-border-color2, #ddd); border-radius: 6px; padding: 6px 10px; overflow: hidden }
.scaleml-lab .scaleml-soft { color: var(--jp-ui-font-color2, #666) }
.scaleml-lab .scaleml-head { font-size: 11px; line-height: 16px; color: var(--jp-ui-font-color2, #666); padding-left: 2px }
.scaleml-lab .scaleml-words { font-size: 14px; line-height: 1.45; min-height: 21px }
.scaleml-lab .scaleml-error { color: var(--jp-error-color1, #c62828) }
.scaleml-lab .scaleml-keys { text-align: center }
.scaleml-lab .scaleml-about { font-size: 11px; line-height: 22px; text-align: right; padding-left: 12px;
  color: var(--jp-ui-font-color2, #666); white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
.scaleml-lab .scaleml-verdict { font-size: 15px; font-weight: 600 }
.scaleml-lab .scaleml-key { margin-left: 10px; font-size: 11px; white-space: nowrap }
.scaleml-lab .scaleml-key i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 4px }
.scaleml-lab .scaleml-legend { display: flex; flex-wrap: wrap; gap: 2px 18px; font-size: 12px; line-height: 20px }
.scaleml-lab .scaleml-legend span { max-width: 100%; overflow-wrap: anywhere }
.scaleml-lab .scaleml-legend svg { vertical-align: middle; margin-right: 6px }
.scaleml-lab .bqplot { --bq-axislabel-font: 11px sans-serif }
.scaleml-lab .widget-html, .scaleml-lab .widget-html-content { line-height: inherit; height: auto }
.scaleml-lab .widget-html, .scaleml-lab .widget-html-content { min-width: 0 }
.scaleml-lab .widget-html-content { flex: 1 1 auto }
.scaleml-lab .scaleml-card { box-sizing: border-box; max-width: 100% }
.scaleml-lab .bqplot path.line[style*="dasharray: 10, 10"] { stroke-dasharray: 8, 4 !important }
.scaleml-lab .bqplot path.line[style*="dasharray: 2, 10"] { stroke-dasharray: 3, 2.5 !important }
.scaleml-lab .widget-button { margin-right: 4px }
.scaleml-lab .widget-checkbox label { align-items: center }
.scaleml-lab .widget-checkbox input[type="checkbox"] { margin: 0 6px 0 0 }
.scaleml-lab .scaleml-form, .scaleml-lab .scaleml-pages > * { flex-flow: row wrap; align-items: center; min-width: 0 }
.scaleml-lab .scaleml-strategies { display: grid; width: 100%; gap: 0 10px; align-items: center;
  grid-template-columns: max-content minmax(0, max-content) max-content }
.scaleml-lab .scaleml-strategies > :nth-child(3n + 1) { grid-column: 1 }
.scaleml-lab .scaleml-strategies > :nth-child(3n + 2) { grid-column: 2 }
.scaleml-lab .scaleml-strategies > :nth-child(3n) { grid-column: 3 }
.scaleml-lab .scaleml-strategies > .widget-checkbox:has(input:not(:checked)) + .scaleml-form,
.scaleml-lab .scaleml-strategies > .widget-checkbox:has(input:not(:checked)) + .scaleml-form + * { display: none }
.scaleml-lab .scaleml-group { align-items: center; margin-right: 14px; max-width: 100% }
.scaleml-lab .scaleml-group > * { flex: 0 0 auto }
.scaleml-lab .scaleml-group > .scaleml-pages { flex: 0 1 auto; min-width: 0 }
.scaleml-lab .scaleml-narrow { display: none }
.scaleml-lab .scaleml-narrow th, .scaleml-lab .scaleml-narrow td { padding: 2px 4px !important }
.scaleml-lab .scaleml-narrow :is(th, td):first-child { min-width: 7em !important; overflow-wrap: anywhere }
.scaleml-lab .scaleml-narrow > * + * { margin-top: 6px }
@container (max-width: 1140px) {
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
.scaleml-bar { height: 6px; margin: 2px 0; border-radius: 3px; background: var(--jp-border-color2, #ddd); overflow: hidden }
.scaleml-bar i { display: block; height: 100%; background: #0072B2 }
</style>"""
