from pathlib import Path
def write_results(plan, dataset, lines, published): return Path(plan.out)/"report.html"
