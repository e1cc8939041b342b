# What streams read in Google Cloud: their functions may see the buckets and tables that they name.

locals {
  _from = merge(flatten([
    for name, streams in local.streams : [
      for key, stream in streams : { "${name}/${key}" = merge(stream.from, { function = replace("${name}-source", "_", "-") }) }
      if stream.from != null
    ]
  ])...)
  _buckets = distinct([
    for from in values(local._from) : {
      function = from.function
      bucket   = split("/", trimprefix(from.path, "gs://"))[0]
    } if from.system == "gcs"
  ])
  _tables = distinct([
    for from in values(local._from) : {
      function = from.function
      project  = length(split(".", from.table)) == 3 ? split(".", from.table)[0] : try(from.project, var.project)
      dataset  = reverse(split(".", from.table))[1]
      table    = reverse(split(".", from.table))[0]
    } if from.system == "bigquery" && try(from.table, null) != null
  ])
  # A query is run in this project, whatever it reads; what it reads is for the owner of that to grant.
  _queriers = { for name in distinct([for from in values(local._from) : from.function if from.system == "bigquery"]) : name => name }
}

resource "google_storage_bucket_iam_member" "read" {
  for_each = { for each in local._buckets : "${each.function}/${each.bucket}" => each }
  bucket   = each.value.bucket
  role     = "roles/storage.objectViewer"
  member   = module.function[each.value.function].member
}

resource "google_bigquery_table_iam_member" "read" {
  for_each   = { for each in local._tables : "${each.function}/${each.project}.${each.dataset}.${each.table}" => each }
  project    = each.value.project
  dataset_id = each.value.dataset
  table_id   = each.value.table
  role       = "roles/bigquery.dataViewer"
  member     = module.function[each.value.function].member
}
