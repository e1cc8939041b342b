# The books. firestore.yaml is infra/gcp/indexes.py in another form, and a test compares the two.

locals {
  _firestore = yamldecode(file("${path.module}/firestore.yaml"))
  # By collection and field: whether documents go by it.
  fields = merge([
    for collection, fields in local._firestore.exempt : {
      for field in fields : "${collection}/${field}" => {
        collection = collection
        field      = field
        expires    = try(local._firestore.time_to_live[collection], "") == field
      }
    }
  ]...)
}

resource "google_firestore_database" "books" {
  project                           = var.project
  name                              = "(default)"
  location_id                       = coalesce(var.firestore_location, var.region)
  type                              = "FIRESTORE_NATIVE"
  concurrency_mode                  = "OPTIMISTIC"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"

  # `terraform destroy` leaves the books where they are.
  delete_protection_state = "DELETE_PROTECTION_ENABLED"
  deletion_policy         = "ABANDON"
  depends_on              = [google_project_service.enabled]
}

resource "google_firestore_backup_schedule" "daily" {
  project   = var.project
  database  = google_firestore_database.books.name
  retention = "604800s"
  daily_recurrence {}
}

# No index on what nobody asks for: one on something that only grows holds a collection down to 500 writes a second.
resource "google_firestore_field" "exempt" {
  for_each   = local.fields
  project    = var.project
  database   = google_firestore_database.books.name
  collection = each.value.collection
  field      = each.value.field
  index_config {}
  dynamic "ttl_config" {
    for_each = each.value.expires ? [1] : []
    content {}
  }
}

resource "google_firestore_index" "each" {
  for_each = {
    for index in local._firestore.composite :
    "${index.collection}/${join(",", [for field in index.fields : field[0]])}" => index
  }
  project     = var.project
  database    = google_firestore_database.books.name
  collection  = each.value.collection
  query_scope = "COLLECTION"
  dynamic "fields" {
    for_each = each.value.fields
    content {
      field_path   = fields.value[0]
      order        = fields.value[1] == "CONTAINS" ? null : fields.value[1]
      array_config = fields.value[1] == "CONTAINS" ? "CONTAINS" : null
    }
  }
}
