"""The paper's systems side by side: cases, systems, trials, stored results, tables and plots."""
