# The table of what happened, for integrations that want it: a subscription writes it, without code in between.

locals {
  datasets = toset([for each in values(local.monitored) : each.dataset])
  tables   = { for each in distinct([for each in values(local.monitored) : { dataset = each.dataset, table = each.table }]) : "${each.dataset}.${each.table}" => each }
}

resource "google_bigquery_dataset" "monitoring" {
  #checkov:skip=CKV_GCP_81:Google's own keys encrypt it; whoever has to hold the keys sets an organisation policy
  for_each                   = local.datasets
  project                    = var.project
  dataset_id                 = each.key
  location                   = var.region
  delete_contents_on_destroy = false
  depends_on                 = [google_project_service.enabled]
}

resource "google_bigquery_table" "monitoring" {
  #checkov:skip=CKV_GCP_80:Google's own keys encrypt it; whoever has to hold the keys sets an organisation policy
  for_each            = local.tables
  project             = var.project
  dataset_id          = google_bigquery_dataset.monitoring[each.value.dataset].dataset_id
  table_id            = each.value.table
  deletion_protection = true
  time_partitioning {
    type  = "DAY"
    field = "timestamp"
  }
  # As shared/monitoring.py writes its rows.
  schema = jsonencode([
    for name, type in {
      dag_name = "STRING", timestamp = "TIMESTAMP", type_id = "INTEGER", location = "STRING", position = "STRING", info = "STRING"
    } : { name = name, type = type, mode = "NULLABLE" }
  ])
}

resource "google_bigquery_table_iam_member" "agent" {
  for_each   = local.tables
  project    = var.project
  dataset_id = google_bigquery_table.monitoring[each.key].dataset_id
  table_id   = google_bigquery_table.monitoring[each.key].table_id
  role       = "roles/bigquery.dataEditor"
  member     = local.pubsub_agent
}

resource "google_bigquery_table_iam_member" "removes" {
  for_each   = { for each in setproduct(keys(local._removers), keys(local.tables)) : "${each[0]}/${each[1]}" => each }
  project    = var.project
  dataset_id = google_bigquery_table.monitoring[each.value[1]].dataset_id
  table_id   = google_bigquery_table.monitoring[each.value[1]].table_id
  role       = "roles/bigquery.dataEditor"
  member     = module.function[each.value[0]].member
}
