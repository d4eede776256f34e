// Opens a page at some widths, light and dark, and prints what it finds as JSON.
// Arguments as JSON: {page, browser, views, shots}; see browser.py.
"use strict";
const fs = require("fs");
const path = require("path");
const puppeteer = require("puppeteer-core");

async function look(browser, args, width, scheme) {
  const tab = await browser.newPage();
  const said = [];
  tab.on("console", (m) => {
    if (["error", "warn", "warning"].includes(m.type())) said.push(m.text());
  });
  tab.on("pageerror", (error) => said.push(String(error)));
  tab.on("requestfailed", (request) => said.push(`not loaded: ${request.url()}`));
  const phone = width < 600;
  const shape = { width, height: phone ? 844 : 900, isMobile: phone, hasTouch: phone };
  await tab.setViewport({ ...shape, deviceScaleFactor: 1 });
  await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await tab.goto("file://" + path.resolve(args.page), { waitUntil: "load" });
  if (args.shots) {
    const name = path.join(args.shots, `${width}-${scheme}`);
    await tab.screenshot({ path: `${name}-top.png` });
    await tab.screenshot({ path: `${name}.png`, fullPage: true });
  }
  // What is closed is looked at, too.
  await tab.$$eval("details", (all) => all.forEach((one) => (one.open = true)));
  await tab.evaluate(fs.readFileSync(require.resolve("axe-core"), "utf8"));
  const overflow = await tab.evaluate(() => {
    const wide = document.documentElement.scrollWidth;
    return wide - document.documentElement.clientWidth;
  });
  const found = await tab.evaluate(() => axe.run(document));
  const rules = found.violations.map((rule) => ({
    id: rule.id,
    impact: rule.impact,
    help: rule.help,
    count: rule.nodes.length,
    first: rule.nodes.slice(0, 3).map((node) => node.target.join(" ")),
  }));
  await tab.close();
  return { width, scheme, overflow, said, rules };
}

async function main() {
  const args = JSON.parse(process.argv[2]);
  const browser = await puppeteer.launch({
    executablePath: args.browser,
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
  const seen = [];
  for (const [width, scheme] of args.views)
    seen.push(await look(browser, args, width, scheme));
  await browser.close();
  console.log(JSON.stringify(seen));
}

main().catch((error) => {
  console.error(String(error));
  process.exit(2);
});
